"""A plan as text for people, and as plain values for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gpt2_jax.planning.plan import COMPILED, Plan

_GIB = 2**30
_MIB = 2**20


def as_json(plan: Plan, dollars_per_chip_hour: float | None = None) -> dict[str, Any]:
    """Plain values, ranges as [low, high]; `dollars` only with a price."""
    values = dataclasses.asdict(plan)
    if dollars_per_chip_hour is not None and plan.chip_hours is not None:
        values["dollars"] = tuple(hours * dollars_per_chip_hour for hours in plan.chip_hours)
    return {
        name: sorted(value) if isinstance(value, tuple) else value for name, value in values.items()
    }


def as_text(plan: Plan, dollars_per_chip_hour: float | None = None) -> str:
    """The whole plan."""
    lines = [
        ("topology", f"{plan.topology}, {plan.devices} devices"),
        ("mesh", _mesh(plan)),
        ("model", f"{plan.parameters:,} parameters, remat {plan.remat}"),
        (
            "batch",
            f"{plan.tokens_per_step:,} tokens a step: {plan.rows_per_device} sequences a device, "
            f"{plan.accumulation_steps} microbatch(es)",
        ),
        ("memory", _memory(plan)),
        ("", "  ".join(f"{kind} {_size(size)}" for kind, size in plan.memory_bytes.items())),
    ]
    if plan.collectives is not None:
        lines.append(("transfers", "in a step, by each device"))
        lines += [("", _collective(row)) for row in plan.collectives if row["of"] != "scalars"]
        small = sum(row["count"] for row in plan.collectives if row["of"] == "scalars")
        lines.append(("", f"and {small} of a few numbers"))
    if plan.traffic_ratio is not None:
        lines.append(
            ("", f"parameters and gradients: {plan.traffic_ratio:.2f} of what must move on paper")
        )
    if plan.rematerializations:
        lines.append(("", f"{plan.rematerializations} arrays move the long way round (XLA warns)"))
    lines.append(("FLOPs", f"{plan.flops_per_step:.3g} a step (6N + 6LTd per token)"))
    if plan.step_seconds is not None:
        lines += _times(plan, dollars_per_chip_hour)
    if plan.compile_seconds is not None:
        lines.append(("compiled in", f"{plan.compile_seconds:.0f} s"))
    lines.append(("method", plan.method))
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def as_table(plans: Sequence[Plan]) -> str:
    """A line for each plan, for `--search`."""
    head = (
        f"{'mesh':<28}{'remat':<7}{'rows':>5}{'micro':>6}{'GiB':>8}{'tokens/s':>20}{'MFU':>12}"
        f"{'days':>14}"
    )
    return "\n".join([head, *map(_row, plans)])


def _row(plan: Plan) -> str:
    layout = (
        f"{_mesh(plan):<28}{plan.remat:<7}{plan.rows_per_device:>5}{plan.accumulation_steps:>6}"
        f"{plan.needed_bytes / _GIB:>8.1f}"
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
    total = f"{days}, {_range(plan.chip_hours, ',.0f')} chip-hours to step {plan.total_steps:,}"
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
    ]


def _mesh(plan: Plan) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())


def _memory(plan: Plan) -> str:
    needed, available = plan.needed_bytes, plan.available_bytes
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    left = f"{_size(abs(available - needed))} {'to spare' if plan.fits else 'too much'}"
    if not plan.fits and plan.method == COMPILED:
        left = f"temporaries alone are {left}" if needed > available else "the compiler says"
    advice = "" if plan.fits else _advice(plan)
    return f"{verdict}: {_size(needed)} of {_size(available)} a device, {left}{advice}"


def _advice(plan: Plan) -> str:
    state = sum(plan.memory_bytes[kind] for kind in ("parameters", "optimizer"))
    if state > plan.available_bytes:
        return "; the state alone is more: raise mesh.fsdp, or take more devices"
    remat = "" if plan.remat == "full" else " or model.remat"
    return f"; raise train.accumulation_steps{remat}, or --search"


def _collective(row: dict[str, Any]) -> str:
    when = "meanwhile" if row["asynchronous"] else "waiting"
    return (
        f"{row['kind']:<19}{row['of']:<12}over {row['axis']:<12}{row['count']:>6} times "
        f"{row['bytes'] / _MIB:>10,.1f} MiB, {when}"
    )


def _range(values: Sequence[float], form: str) -> str:
    low, high = sorted(values)
    return f"{low:{form}} to {high:{form}}"


def _size(size: float) -> str:
    return f"{size / _GIB:,.2f} GiB" if size >= _GIB else f"{size / _MIB:,.1f} MiB"
