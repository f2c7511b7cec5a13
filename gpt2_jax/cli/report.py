"""Implements `gpt2-jax report`, which turns results of sweeps into tables, curves and verdicts."""

from __future__ import annotations

import argparse
from pathlib import Path

from gpt2_jax.errors import UserError

_VERIFIED_STEPS = 100

HELP = """\
Write report.md and report.html into the folder of a sweep, and print the verdict table: means and
differences with intervals, what so many seeds can show, and whether each arm is better, worse,
equivalent or undecided. The HTML page needs no network.

With --all, print one table over all sweeps and records in a folder. With --verify, train the first
steps of a point of a sweep or record again and compare its metrics line by line; the exit status is
1 if one differs by more than 0.1 %."""
EXAMPLES = """\
gpt2-jax report runs/positions
gpt2-jax report --all experiments/records
gpt2-jax report --verify runs/positions"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="the --out of a sweep")
    parser.add_argument(
        "--all", metavar="DIR", help="a folder, whose folders of sweeps become one table"
    )
    parser.add_argument(
        "--verify", metavar="DIR", help="the folder of a sweep or record, to train a point again"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="how many steps --verify trains (default: 100)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where the report is written (default: the sweep's folder)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the report, or prints a table, and returns 0; 1 if `--verify` finds differences."""
    _check(args)
    # Imported after the arguments are checked, as scipy takes a second.
    from gpt2_jax.files.paths import local_path
    from gpt2_jax.sweeps.report import overview, write_report

    if args.verify is not None:
        return _verify(local_path(args.verify, "--verify"), args.steps or _VERIFIED_STEPS)
    if args.all is not None:
        print(overview(local_path(args.all, "--all")))
        return 0
    folder = local_path(args.sweep, "the folder")
    out = folder if args.out is None else local_path(args.out, "--out")
    print(write_report(folder, out))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses arguments that do not belong together."""
    if [args.sweep, args.all, args.verify].count(None) != 2:
        raise UserError(
            "report needs one of: the folder of a sweep, --all DIR, --verify DIR "
            "(see gpt2-jax report --help)"
        )
    if args.out is not None and args.sweep is None:
        raise UserError(
            "--out is where the report of one sweep is written: name the sweep's folder"
        )
    if args.steps is not None and args.verify is None:
        raise UserError("--steps is for --verify DIR")
    if args.steps is not None and args.steps < 1:
        raise UserError(f"--steps must be at least 1, not {args.steps}")
    if args.sweep == "":
        raise UserError("the folder of the sweep is empty: name a path")


def _verify(folder: Path, steps: int) -> int:
    from gpt2_jax.sweeps.verify import verification, verify

    point, matches = verify(folder, steps)
    print(verification(point, matches))
    return 0 if all(match.matches for match in matches) else 1
