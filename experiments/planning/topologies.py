"""The plans in docs/: GPT-2's sizes on TPU slices, worse variants of one of them, and its layouts.

Needs the `tpu` extra and no TPU. From the project's root:

    python experiments/planning/topologies.py --out experiments/planning/results

Writes topologies.json, variants.json and layouts.json there, and their tables to standard output;
`--only PART` writes one of them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from gpt2_jax.config import Config, load_config
from gpt2_jax.planning.topology import compile_without_devices, parse_topology

_CONFIGS = Path(__file__).parents[2] / "configs"
_GIB, _MIB = 2**30, 2**20

# (config, slice, overrides): microbatches that fit, and meshes on which gradients are scattered.
RUNS = (
    ("gpt2_small", "v5e:4x4", "mesh.data=4 mesh.fsdp=4 train.accumulation_steps=4"),
    (
        "gpt2_medium",
        "v4:2x2x4",
        "mesh.data=4 mesh.fsdp=4 train.accumulation_steps=4 compute.remat=dots",
    ),
    ("gpt2_large", "v5p:4x4x4", "mesh.data=4 mesh.fsdp=16 compute.remat=none"),
    ("gpt2_xl", "v5e:16x16", "mesh.data=16 mesh.fsdp=16"),
    ("gpt2_xl", "v6e:16x16", "mesh.data=16 mesh.fsdp=16 compute.remat=dots"),
    ("gpt2_large", "v5p:4x4x4", "mesh.data=4 mesh.fsdp=8 mesh.tensor=2 compute.remat=none"),
)
# Of 124M with 8 sequences a device on 16 chips of v5e; but for ours, each known to be worse.
VARIANTS = ("ours", "reference attention", "windowed products", "activations not constrained")
# (config, slice, overrides, meshes): the same step on meshes that a run may choose from.
LAYOUTS = (
    ("gpt2_small", "v5e:4x4", "train.accumulation_steps=4", "16x1 4x4 2x8 1x16"),
    ("gpt2_medium", "v5e:8x8", "compute.remat=dots", "64x1 8x8 2x32 1x64"),
    ("gpt2_xl", "v5e:16x16", "", "128x2 64x4 32x8 16x16 4x64"),
)


def main() -> None:
    """Compiles everything; a quarter of an hour on two cores."""
    parts = {"topologies": _topologies, "variants": _variants, "layouts": _layouts}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", choices=parts, metavar="PART")
    args = parser.parse_args()
    compile_without_devices()
    for name, part in parts.items():
        if args.only in (None, name):
            part(args.out)


def _topologies(out: Path) -> None:
    plans = [_plan(_config(name, changes), topology) for name, topology, changes in RUNS]
    for plan, (name, _, changes) in zip(plans, RUNS, strict=True):
        plan |= {"config": name, "overrides": changes}
    _write(out / "topologies.json", plans)
    print(_table(plans))


def _variants(out: Path) -> None:
    variants = []
    config = _config("gpt2_small", "mesh.data=1 mesh.fsdp=16 train.batch_size=128")
    for variant in VARIANTS:
        with _worse(variant):
            changed = config
            if variant == "reference attention":
                changed = _config(
                    "gpt2_small",
                    "mesh.data=1 mesh.fsdp=16 train.batch_size=128 compute.attention=reference",
                )
            variants.append(_plan(changed, "v5e:4x4") | {"variant": variant})
    _write(out / "variants.json", variants)
    print(_variants_table(variants))


def _layouts(out: Path) -> None:
    plans = []
    for name, topology, changes, meshes in LAYOUTS:
        for mesh in meshes.split():
            data, fsdp = mesh.split("x")
            overrides = f"mesh.data={data} mesh.fsdp={fsdp} {changes}".strip()
            plan = _plan(_config(name, overrides), topology)
            plans.append(plan | {"config": name, "overrides": overrides})
    _write(out / "layouts.json", plans)
    print(_layouts_table(plans))


def _config(name: str, overrides: str) -> Config:
    from gpt2_jax.data.token_sets import resolve_vocab_size

    return resolve_vocab_size(load_config(_CONFIGS / f"{name}.py", overrides.split()))


def _plan(config: Config, topology: str) -> dict[str, Any]:
    from gpt2_jax.planning import report
    from gpt2_jax.planning.plan import compiled_plan

    return report.as_json(compiled_plan(config, parse_topology(topology)))


@contextlib.contextmanager
def _worse(variant: str) -> Iterator[None]:
    """The step without one of the things that make it move little."""
    from gpt2_jax.model import embedding, gpt2, linear, loss
    from gpt2_jax.training import step

    with contextlib.ExitStack() as stack:
        patch = lambda *args: stack.enter_context(mock.patch.object(*args))  # noqa: E731
        if variant == "activations not constrained":
            for module in (gpt2, linear, embedding, loss):
                patch(module, "constrain", lambda x, axes: x)
            for module in (linear, embedding, loss):
                patch(module, "gather", lambda w, axes, dtype: w.astype(dtype))
        if variant in ("activations not constrained", "windowed products"):
            patch(step, "compiler_options", lambda mesh, model: {})
        yield


def _write(path: Path, plans: list[dict[str, Any]]) -> None:
    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu", "flax")}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"versions": versions, "plans": plans}, indent=1) + "\n")


def _moved(plan: dict[str, Any], of: str, kinds: str = "") -> float:
    rows = [r for r in plan["collectives"] if r["of"] == of and r["kind"].startswith(kinds)]
    return sum(row["bytes"] for row in rows) / _MIB


def _table(plans: list[dict[str, Any]]) -> str:
    lines = [
        "| config | slice | mesh | rows, microbatches, remat | GiB | gathered | reduced "
        "| activations | of minimum | tokens/s a chip | MFU % | compiled in |",
        "|" + "---|" * 12,
    ]
    for plan in plans:
        low, high = sorted(plan["tokens_per_second"])
        mfu = "-".join(f"{100 * x:.0f}" for x in sorted(plan["mfu"]))
        lines.append(
            f"| {plan['config']} | {plan['topology']} | "
            f"{' x '.join(str(n) for n in plan['mesh'].values())} | "
            f"{plan['rows_per_device']}, {plan['accumulation_steps']}, {plan['remat']} | "
            f"{plan['needed_bytes'] / _GIB:.1f} of {plan['available_bytes'] / _GIB:.1f} | "
            f"{_moved(plan, 'parameters'):,.0f} MiB | {_moved(plan, 'gradients'):,.0f} MiB | "
            f"{_moved(plan, 'activations'):,.0f} MiB | {plan['traffic_ratio']:.2f} | "
            f"{low / plan['devices']:,.0f}-{high / plan['devices']:,.0f} | {mfu} | "
            f"{plan['compile_seconds']:.0f} s |"
        )
    return "\n".join(lines)


def _variants_table(plans: list[dict[str, Any]]) -> str:
    lines = [
        "| variant | GiB | parameters and gradients | activations | step | MFU % |",
        "|" + "---|" * 6,
    ]
    for plan in plans:
        low, high = sorted(plan["step_seconds"])
        mfu = "-".join(f"{100 * x:.0f}" for x in sorted(plan["mfu"]))
        weights = _moved(plan, "parameters") + _moved(plan, "gradients")
        lines.append(
            f"| {plan['variant']} | {plan['needed_bytes'] / _GIB:.1f} | {weights:,.0f} MiB | "
            f"{_moved(plan, 'activations'):,.0f} MiB | {low:.3f}-{high:.3f} s | {mfu} |"
        )
    return "\n".join(lines)


def _layouts_table(plans: list[dict[str, Any]]) -> str:
    lines = ["| config | slice | data x fsdp | GiB | step |", "|" + "---|" * 5]
    for plan in plans:
        low, high = sorted(plan["step_seconds"])
        lines.append(
            f"| {plan['config']} | {plan['topology']} | "
            f"{plan['mesh']['data']} x {plan['mesh']['fsdp']} | "
            f"{plan['needed_bytes'] / _GIB:.1f} of {plan['available_bytes'] / _GIB:.1f} | "
            f"{low:.3f}-{high:.3f} s |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
