"""What each lever on a TPU's step is worth: compiled cycles by category, before and after it.

Needs the `tpu` extra and no TPU. From the project's root, one of

    python experiments/planning/levers.py measure --stage NAME [--commit REV] [--runs 124M XL]
    python experiments/planning/levers.py table

`measure` compiles the runs with the code of a commit, by default that of the working tree, and adds
rows to results/levers.json; `table` prints the rows as Markdown. A stage is the code after one more
lever. The runs are the same in all stages, but for knobs that `--set` gives.

Cycles are XLA's own estimate. It has none for kernels and transfers, which are not counted here.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path(__file__).parents[2]
_RESULTS = Path(__file__).parent / "results" / "levers.json"
_GIB, _MILLION = 2**30, 1e6


class _Run(NamedTuple):
    """A config on a slice; `overrides` are what the stage before all levers needs."""

    config: str
    topology: str
    overrides: str


RUNS = {
    "124M": _Run("gpt2_small", "v5e:4x4", "mesh.data=4 mesh.fsdp=4 train.accumulation_steps=4"),
    "774M": _Run("gpt2_large", "v5p:4x4x4", "mesh.data=4 mesh.fsdp=16 compute.remat=none"),
    "XL": _Run("gpt2_xl", "v5e:16x16", "mesh.data=16 mesh.fsdp=16"),
    "XL v6e": _Run("gpt2_xl", "v6e:16x16", "mesh.data=16 mesh.fsdp=16 compute.remat=dots"),
}

# In order: the first pattern that occurs in an instruction's op_name gives its category. XLA names
# a fusion after its last operation, so what it fuses into a product counts as the product.
CATEGORIES = (
    ("loss and logits", r"jvp\(\)"),
    ("copies of the scan", r"GPT2\)+/while/body/(jit\()?dynamic_"),
    ("recomputation", r"rematted_computation"),
    ("around the kernel", r"/attn/(shard_map|slice|split|reshape|transpose|swapaxes)"),
    ("products forward", r"/jvp\(GPT2\)/.*/(attn|mlp)/.*dot_general"),
    ("products backward", r"/transpose\(jvp\(GPT2\)\)/.*/(attn|mlp)/.*dot_general"),
    ("biases and layout of attention", r"/attn/"),
    ("norms, GELU, biases", r"/(ln_1|ln_2|ln_f|mlp)/"),
    ("embedding", r"_embed"),
)
_OTHER = "optimizer and the rest"


def main() -> None:
    """Runs the subcommand."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="compile runs and add their rows")
    measure.add_argument("--stage", required=True, help="name of the row, such as 'before'")
    measure.add_argument("--commit", help="the code to measure; default: the working tree")
    measure.add_argument("--runs", nargs="*", choices=RUNS, default=list(RUNS), metavar="RUN")
    measure.add_argument("--set", default="", metavar="KNOBS", help="overrides, after the run's")
    commands.add_parser("table", help="print the rows as Markdown")
    args = parser.parse_args()
    if args.command == "table":
        print(_table(json.loads(_RESULTS.read_text())["rows"]))
    elif args.commit:
        _measure_commit(args.commit)
    else:
        for name in args.runs:
            _add(_measure(name, args.stage, args.set))


def _measure_commit(revision: str) -> None:
    """Runs this script with the package of a commit, from a temporary worktree."""
    commit = _git("rev-parse", "--short", revision)
    with tempfile.TemporaryDirectory() as folder:
        _git("worktree", "add", "--detach", folder, commit)
        try:
            arguments = sys.argv[1:]
            at = next(i for i, each in enumerate(arguments) if each.startswith("--commit"))
            del arguments[at : at + (1 if "=" in arguments[at] else 2)]
            paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
            changed = {"PYTHONPATH": os.pathsep.join(paths), "LEVERS_COMMIT": commit}
            subprocess.run(
                [sys.executable, __file__, *arguments], env=os.environ | changed, check=True
            )
        finally:
            _git("worktree", "remove", "--force", folder)


def _measure(name: str, stage: str, more: str) -> dict[str, Any]:
    from gpt2_jax.planning.topology import compile_without_devices, parse_topology

    compile_without_devices()
    import gpt2_jax
    from gpt2_jax.config import load_config
    from gpt2_jax.data.token_sets import resolve_vocab_size
    from gpt2_jax.planning import aot, report
    from gpt2_jax.planning.plan import compiled_plan

    programs = []
    read = getattr(aot.Program, "read_by_levers", aot.Program)

    def program(text: str) -> Any:
        programs.append(read(text))
        return programs[-1]

    program.read_by_levers = read  # so that a second run does not wrap it again
    aot.Program = program
    run = RUNS[name]
    configs = Path(gpt2_jax.__file__).parents[1] / "configs"
    overrides = f"{run.overrides} {more}".split()
    config = resolve_vocab_size(load_config(configs / f"{run.config}.py", overrides))
    plan = report.as_json(compiled_plan(config, parse_topology(run.topology)))
    return {
        "run": name,
        "stage": stage,
        "commit": os.environ.get("LEVERS_COMMIT") or _git("describe", "--always", "--dirty"),
        "config": run.config,
        "topology": run.topology,
        "overrides": " ".join(overrides),
        "versions": {each: importlib.metadata.version(each) for each in ("jax", "libtpu", "flax")},
        "cycles": programs[-1].cycles() if programs else None,
        "by_category": cycles_by_category(programs[-1]) if programs else {},
        **{key: plan[key] for key in ("needed_bytes", "mfu", "step_seconds", "exposed_seconds")},
        **{key: plan[key] for key in ("memory_bytes", "compile_seconds", "collectives")},
    }


def cycles_by_category(program: Any) -> dict[str, int]:
    """Returns XLA's estimate of the cycles of a step, by CATEGORIES."""
    cycles: dict[str, int] = collections.defaultdict(int)
    for instruction, times in program._scheduled():
        match = re.search(r'"estimated_cycles":"(\d+)"', instruction.text)
        if match and int(match[1]) < 2**50:  # XLA marks a missing estimate with a large number
            found = (each for each, rule in CATEGORIES if re.search(rule, instruction.op_name))
            cycles[next(found, _OTHER)] += times * int(match[1])
    return dict(cycles)


def _add(row: dict[str, Any]) -> None:
    rows = json.loads(_RESULTS.read_text())["rows"] if _RESULTS.exists() else []
    same = ("run", "stage")
    rows = [other for other in rows if any(other[key] != row[key] for key in same)] + [row]
    _RESULTS.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    print(row["run"], row["stage"], f"{(row['cycles'] or 0) / _MILLION:.1f} M cycles", flush=True)


def _table(rows: list[dict[str, Any]]) -> str:
    names = [*(name for name, _ in CATEGORIES), _OTHER]
    head = ["run", "stage", *names, "sum", "GiB", "MFU %", "compiled in"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in sorted(rows, key=lambda row: list(RUNS).index(row["run"])):
        parts = [f"{row['by_category'].get(name, 0) / _MILLION:.0f}" for name in names]
        mfu = "-".join(f"{100 * share:.0f}" for share in sorted(row["mfu"] or ())) or "does not fit"
        lines.append(
            f"| {row['run']} | {row['stage']} | {' | '.join(parts)} | "
            f"**{(row['cycles'] or 0) / _MILLION:.0f}** | {row['needed_bytes'] / _GIB:.2f} | "
            f"{mfu} | {row['compile_seconds']:.0f} s |"
        )
    return "\n".join(lines)


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
