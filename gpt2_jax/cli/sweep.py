"""Implements `gpt2-jax sweep`, which runs the points of a sweep file."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys

from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.sweeps import cost
from gpt2_jax.sweeps.file import load_sweep
from gpt2_jax.sweeps.folder import SweepFolder
from gpt2_jax.sweeps.local import LocalEngine
from gpt2_jax.sweeps.runner import SweepEnd, points_so_far, run_sweep
from gpt2_jax.sweeps.slots import make_slots
from gpt2_jax.sweeps.stages import Stages

HELP = """\
Train all models of a sweep file, or resume the sweep in a folder.

The file is Python: its get_sweep() returns a gpt2_jax.sweeps.Sweep. All points are checked before
one starts. Each point is a run of its own, in DIR/points/NAME/run; the same command resumes the
sweep where it was interrupted, and tries failed points again. DIR/results.csv has a line for each
point. The exit status is 0 if every point is done or has diverged, which is a result too, and 1 if
one has failed."""
EXAMPLES = """\
gpt2-jax sweep --sweep sweeps/positions.py --dry_run
gpt2-jax sweep --sweep sweeps/positions.py --out runs/positions --workers 2
gpt2-jax sweep --sweep sweeps/positions.py --out runs/positions --devices_per_point 1
gpt2-jax sweep --sweep sweeps/positions.py --out runs/positions --print_commands"""

_FASTEST = 1e12  # tokens per second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    parser.add_argument(
        "--sweep", required=True, metavar="FILE", help="Python file that defines get_sweep()"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="the folder of the sweep; it is made if it is missing, and resumed if it has one",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="points to run at the same time, each on its part of the cores (default: 1, or as "
        "many as --devices_per_point leaves room for)",
    )
    parser.add_argument(
        "--devices_per_point",
        type=int,
        metavar="K",
        help="NVIDIA GPUs of each point, which CUDA_VISIBLE_DEVICES gives it",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check the sweep and show its points, tokens and time, without training",
    )
    parser.add_argument(
        "--tokens_per_second",
        type=float,
        metavar="N",
        help="the speed of one point, for the time that --dry_run shows (default: measured on the "
        "points that --out has)",
    )
    parser.add_argument(
        "--print_commands",
        action="store_true",
        help="print one command a point, for any other scheduler, without training; afterwards the "
        "sweep itself collects the results",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document when the sweep ends"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the sweep and returns the exit status."""
    _check(args)
    slots = make_slots(args.workers, args.devices_per_point)
    stages = Stages(load_sweep(args.sweep))
    folder = None
    if args.out is not None:
        folder = SweepFolder(resolve_path(args.out, "--out"))
        folder.check(stages)
    if args.print_commands:
        assert folder is not None  # as _check has seen
        _print_commands(stages, folder)
        return 0
    if args.dry_run:
        points = points_so_far(stages, folder)
        report = cost.estimate(
            stages, folder, points, workers=len(slots), tokens_per_second=args.tokens_per_second
        )
        print(cost.as_json(report, points) if args.json else cost.as_text(report, points))
        return 0
    assert args.out is not None
    end = run_sweep(
        stages,
        args.sweep,
        args.out,
        lambda folder, base, log: LocalEngine(folder, base, slots, log=log),
    )
    _show_end(end, args)
    return end.exit_status


def _show_end(end: SweepEnd, args: argparse.Namespace) -> None:
    summary = ", ".join(f"{count} {state}" for state, count in end.counts.items() if count)
    results = os.path.join(args.out, "results.csv")
    compiled, loaded = end.programs_compiled, end.programs_loaded
    print(f"{sum(end.counts.values())} points: {summary}; {results}", file=sys.stderr)
    if compiled or loaded:
        print(f"compiled {compiled} programs, loaded {loaded} from the cache", file=sys.stderr)
    if args.json:
        programs = {"programs_compiled": compiled, "programs_loaded": loaded}
        print(json.dumps({"out": args.out, "results": results, **end.counts, **programs}))


def _check(args: argparse.Namespace) -> None:
    if args.dry_run and args.print_commands:
        raise UserError("--dry_run and --print_commands cannot be combined")
    if args.print_commands and args.json:
        raise UserError("--print_commands and --json cannot be combined: its output is commands")
    if args.out is None and not args.dry_run:
        raise UserError("--out DIR is missing: name the folder of the sweep")
    if args.tokens_per_second is not None:
        if not args.dry_run:
            raise UserError("--tokens_per_second needs --dry_run, without which it has no effect")
        if not 0 < args.tokens_per_second <= _FASTEST:
            raise UserError(
                f"--tokens_per_second must be greater than 0 and at most {_FASTEST:g}, not "
                f"{args.tokens_per_second:g}"
            )


def _print_commands(stages: Stages, folder: SweepFolder) -> None:
    """Prints a command for each point that is known, and a note about the stages that are not."""
    points = points_so_far(stages, folder)
    for point in points:
        workdir = folder.workdir(point.name)
        words = ["gpt2-jax", "train", *point.flags(stages.sweep.base, workdir)]
        print(shlex.join(words))
    reached = {point.stage for point in points}
    if later := [name for name in stages.sweep.stages if name not in reached]:
        print(
            f"note: the points of stage {later[0]} are known once the points before it are done "
            "and the sweep itself has collected their results",
            file=sys.stderr,
        )
