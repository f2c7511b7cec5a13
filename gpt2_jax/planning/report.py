"""Formats a plan as text for people, or as plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2_jax.model.splash import splash_block
from gpt2_jax.planning.plan import COMPILED, Plan
from gpt2_jax.planning.transfers import Transfer, merge_transfers

_GIB = 2**30
_MIB = 2**20


def as_json(plan: Plan, dollars_per_chip_hour: float | None = None) -> dict[str, Any]:
    """Returns plain values, ranges as [low, high]; `dollars` is there only with a price."""
    config, memory = plan.config, plan.memory
    values = {
        "topology": plan.topology,
        "chip": plan.chip.name,
        "devices": plan.devices,
        "mesh": plan.axis_sizes,
        "method": plan.method,
        "fits": memory.fits,
        "memory_bytes": memory.by_kind,
        "needed_bytes": memory.needed,
        "available_bytes": memory.available,
        "collectives": None if plan.transfers is None else _collectives(plan.transfers),
        "traffic_ratio": plan.traffic_ratio,
        "rematerializations": plan.rematerializations,
        "flops_per_step": plan.flops_per_step,
        "tokens_per_step": config.tokens_per_step,
        "rows_per_device": plan.rows_per_device,
        "accumulation_steps": config.train.accumulation_steps,
        "remat": config.compute.remat,
        "parameters": plan.parameters,
        "trained_parameters": plan.trained_parameters,
        "total_steps": config.train.total_steps,
        "compile_seconds": plan.compile_seconds,
        "step_seconds": plan.step_seconds,
        "exposed_seconds": plan.exposed_seconds,
        "kernel_peak": plan.estimate and plan.estimate.kernel_peak,
        "tokens_per_second": plan.tokens_per_second,
        "mfu": plan.mfu,
        "days": plan.days,
        "chip_hours": plan.chip_hours,
    }
    if dollars_per_chip_hour is not None and plan.chip_hours is not None:
        values["dollars"] = tuple(hours * dollars_per_chip_hour for hours in plan.chip_hours)
    return {
        name: sorted(value) if isinstance(value, tuple) else value for name, value in values.items()
    }


def _parameters(plan: Plan) -> str:
    """Returns the number of parameters in words, and of those trained if they are fewer."""
    count, trained = plan.parameters, plan.trained_parameters
    text = f"{count:,} parameters"
    return text if trained == count else f"{text}, {trained:,} of them trained"


def as_text(plan: Plan, dollars_per_chip_hour: float | None = None) -> str:
    """Returns the whole plan as lines of text."""
    config = plan.config
    lines = [
        ("topology", f"{plan.topology}, {plan.devices} devices"),
        ("mesh", plan.layout),
        ("model", f"{_parameters(plan)}, remat {config.compute.remat}"),
        (
            "batch",
            f"{config.tokens_per_step:,} tokens a step: {plan.rows_per_device} sequences a device, "
            f"{config.train.accumulation_steps} microbatch(es)",
        ),
        ("memory", _memory(plan)),
        ("", "  ".join(f"{kind} {_size(size)}" for kind, size in plan.memory.by_kind.items())),
    ]
    if plan.transfers is not None:
        lines += _transfers(plan.transfers)
    if plan.traffic_ratio is not None:
        lines.append(
            ("", f"parameters and gradients: {plan.traffic_ratio:.2f} of the layout's minimum")
        )
    if plan.rematerializations:
        lines.append(
            ("", f"{plan.rematerializations} arrays are gathered whole to reshard them (XLA warns)")
        )
    lines.append(("FLOPs", f"{plan.flops_per_step:.3g} a step (6N + 6LTd per token)"))
    if plan.step_seconds is not None:
        lines += _times(plan, dollars_per_chip_hour)
    if plan.compile_seconds is not None:
        lines.append(("compiled in", f"{plan.compile_seconds:.0f} s"))
    lines.append(("method", plan.method))
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def as_table(plans: Sequence[Plan]) -> str:
    """Returns a table with a line for each plan, for `--search`."""
    head = (
        f"{'mesh':<28}{'remat':<7}{'rows':>5}{'micro':>6}{'GiB':>8}{'tokens/s':>20}{'MFU':>12}"
        f"{'days':>14}"
    )
    return "\n".join([head, *map(_line, plans)])


def _collectives(transfers: Sequence[Transfer]) -> list[dict[str, Any]]:
    return [
        {
            "kind": transfer.kind,
            "axis": "+".join(transfer.axes),
            "of": transfer.of,
            "asynchronous": transfer.asynchronous,
            "count": transfer.count,
            "bytes": transfer.bytes,
        }
        for transfer in merge_transfers(transfers)
    ]


def _line(plan: Plan) -> str:
    layout = (
        f"{plan.layout:<28}{plan.config.compute.remat:<7}{plan.rows_per_device:>5}"
        f"{plan.config.train.accumulation_steps:>6}{plan.memory.needed / _GIB:>8.1f}"
    )
    if plan.tokens_per_second is None or plan.mfu is None or plan.days is None:
        return f"{layout}  does not fit"
    return (
        f"{layout}{_range(plan.tokens_per_second, ',.0f'):>20}"
        f"{_range([100 * x for x in plan.mfu], '.0f') + ' %':>12}{_range(plan.days, '.2f'):>14}"
    )


def _times(plan: Plan, price: float | None) -> list[tuple[str, str]]:
    assert plan.step_seconds and plan.exposed_seconds and plan.tokens_per_second
    assert plan.mfu and plan.days and plan.chip_hours
    rate = [tokens / plan.devices for tokens in plan.tokens_per_second]
    hours = [24 * day for day in plan.days]
    days = (
        f"{_range(plan.days, '.1f')} days"
        if min(plan.days) > 2
        else f"{_range(hours, '.1f')} hours"
    )
    last = plan.config.train.total_steps
    kernel = plan.estimate and plan.estimate.kernel_peak
    total = f"{days}, {_range(plan.chip_hours, ',.0f')} chip-hours to step {last:,}"
    if price is not None:
        dollars = [hours * price for hours in plan.chip_hours]
        total += f", ${_range(dollars, ',.0f')} at ${price:g} a chip-hour"
    return [
        (
            "step",
            f"{_range(plan.step_seconds, '.3f')} s, {_range(plan.exposed_seconds, '.3f')} s of it "
            "waiting for transfers",
        ),
        (
            "speed",
            f"{_range(plan.tokens_per_second, ',.0f')} tokens/s, "
            f"{_range(rate, ',.0f')} a device, MFU {_range([100 * x for x in plan.mfu], '.0f')} %",
        ),
        ("whole run", total),
        *([] if kernel is None else [("kernel", _kernel(plan, kernel))]),
    ]


def _kernel(plan: Plan, share: Sequence[float]) -> str:
    model = plan.config.model
    block = splash_block(model.context_length)
    return (
        f"attention at {_range([100 * x for x in share], '.0f')} % of the peak: heads "
        f"{model.head_dim} wide, matrix unit {plan.chip.matrix_unit}, blocks of {block}, "
        f"T = {model.context_length}"
    )


def _memory(plan: Plan) -> str:
    memory = plan.memory
    verdict = "fits" if memory.fits else "DOES NOT FIT"
    excess = memory.needed - memory.available
    left = f"{_size(abs(excess))} {'to spare' if memory.fits else 'too much'}"
    if not memory.fits and plan.method == COMPILED:
        left = f"temporaries alone are {left}" if excess > 0 else "according to the compiler"
    advice = "" if memory.fits else f"; {_advice(plan)}"
    sizes = f"{_size(memory.needed)} of {_size(memory.available)} a device"
    if memory.available < plan.chip.hbm_bytes and not plan.chip.is_tpu:
        sizes += f" (what JAX takes of {_size(plan.chip.hbm_bytes)})"
    return f"{verdict}: {sizes}, {left}{advice}"


def _advice(plan: Plan) -> str:
    """Returns what to change so that the step fits, among what this plan can still change."""
    sizes = plan.axis_sizes
    shards = ["raise mesh.fsdp"] if sizes["fsdp"] * sizes["tensor"] < plan.devices else []
    state = sum(plan.memory.by_kind[kind] for kind in ("parameters", "optimizer"))
    if state > plan.memory.available:
        return f"the state alone exceeds it: {' or '.join([*shards, 'use more devices'])}"
    changes = ["train.accumulation_steps"] if plan.rows_per_device > 1 else []
    changes += ["compute.remat"] if plan.config.compute.remat != "full" else []
    if changes:
        return f"raise {' or '.join(changes)}, or use --search"
    return " or ".join([*shards, "use more devices"])


def _transfers(transfers: Sequence[Transfer]) -> list[tuple[str, str]]:
    lines = [("transfers", "in a step, by each device")]
    for transfer in merge_transfers(transfers):
        if transfer.of != "scalars":
            when = "overlapped" if transfer.asynchronous else "blocking"
            lines.append(
                (
                    "",
                    f"{transfer.kind:<19}{transfer.of:<12}over {'+'.join(transfer.axes):<12}"
                    f"{transfer.count:>6} times {transfer.bytes / _MIB:>10,.1f} MiB, {when}",
                )
            )
    small = sum(t.count for t in transfers if t.of == "scalars")
    return [*lines, ("", f"and {small} of norms, biases and losses, which are small")]


def _range(values: Sequence[float], form: str) -> str:
    low, high = sorted(values)
    return f"{low:{form}} to {high:{form}}"


def _size(size: float) -> str:
    return f"{size / _GIB:,.2f} GiB" if size >= _GIB else f"{size / _MIB:,.1f} MiB"
