"""Implements `gpt2-jax report`, which turns results of sweeps into tables, curves and verdicts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gpt2_jax.errors import UserError

_VERIFIED_STEPS = 100
# What --flag is for, of those that only make sense with some others.
_NEEDS_FOLDER = ("out", "record", "against", "png")

HELP = """\
Write report.md and report.html into the folder of a sweep, and print the verdict table: means and
differences with intervals, what so many seeds can show, and whether each arm is better, worse,
equivalent or undecided. The HTML page needs no network.

With --record, write all that the sweep has shown into a small folder that is kept beside the code:
results, configs, thinned metrics, versions, the report and a README.md to complete. It needs the
sweep's folder no longer.

With --against, compare a run, finished or not, with a published curve or another run, and say
whether it is on track.

With --all, print one table over all sweeps and records in a folder. With --verify, train the first
steps of a point of a sweep or record again and compare its metrics line by line; the exit status is
1 if one differs by more than rounding explains."""
EXAMPLES = """\
gpt2-jax report runs/positions
gpt2-jax report runs/positions --record experiments/records/2026-11-28_positions
gpt2-jax report runs/gpt2-124m --against llm.c
gpt2-jax report --all experiments/records
gpt2-jax report --verify runs/positions"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "folder", nargs="?", metavar="SWEEP", help="the --out of a sweep, or a record"
    )
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
        "--point", metavar="NAME", help="which point --verify trains (default: the last that ended)"
    )
    parser.add_argument(
        "--cores",
        type=int,
        metavar="N",
        help="how many CPU cores --verify uses, as numbers are rounded otherwise on another number "
        "(default: as many as the record says that each run had, otherwise all)",
    )
    parser.add_argument(
        "--record",
        metavar="DIR",
        help="write the record of the sweep there, or bring it up to date; by convention in "
        "experiments/records/<date>_<question>",
    )
    parser.add_argument(
        "--against",
        metavar="REFERENCE",
        help="compare a run, whose folder is given in place of a sweep's, with a reference that "
        "comes with the package, a JSON or CSV file, or another run",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where the report is written (default: the sweep's folder; with --against, nowhere)",
    )
    parser.add_argument(
        "--png", action="store_true", help="write the charts as images, too (extra plots)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document in place of the table"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the report, or prints a table, and returns 0; 1 if `--verify` finds differences."""
    _check(args)
    # Imported after the arguments are checked, as scipy takes a second.
    from gpt2_jax.files.paths import local_path, resolve_path
    from gpt2_jax.sweeps.report.record import write_record
    from gpt2_jax.sweeps.report.write import overview, write_report

    if args.verify is not None:
        return _verify(resolve_path(args.verify, "--verify"), args)
    if args.all is not None:
        print(overview(resolve_path(args.all, "--all")))
        return 0
    folder = resolve_path(args.folder)
    if args.against is not None:
        return _against(folder, args)
    if args.record is not None:
        print(write_record(folder, local_path(args.record, "--record")))
        return 0
    out = folder if args.out is None else resolve_path(args.out, "--out")
    print(write_report(folder, out, png=args.png, as_json=args.json))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses arguments that do not belong together."""
    if [args.folder, args.all, args.verify].count(None) != 2:
        raise UserError(
            "report needs exactly one of: a folder, which is that of a sweep or with --against of "
            "a run; --all DIR; --verify DIR (see gpt2-jax report --help)"
        )
    if args.folder is None:
        for name in _NEEDS_FOLDER:
            if getattr(args, name):
                raise UserError(f"--{name} is for the report of one sweep: name the sweep's folder")
        if args.json:
            raise UserError("--json is for the report of one sweep, or of a run with --against")
    for first, second in (
        *(("record", "out"), ("record", "against"), ("record", "png"), ("record", "json")),
        ("against", "png"),
    ):
        if getattr(args, first) and getattr(args, second):
            raise UserError(f"--{first} and --{second} cannot be combined")
    for name in ("steps", "point", "cores"):
        if getattr(args, name) is not None and args.verify is None:
            raise UserError(f"--{name} is for --verify DIR")
    for name in ("steps", "cores"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    if args.folder == "":
        raise UserError("the folder of the sweep is empty: name a path")


def _against(run: Path, args: argparse.Namespace) -> int:
    from gpt2_jax.files.paths import resolve_path
    from gpt2_jax.sweeps.report import against
    from gpt2_jax.sweeps.report.references import load_reference
    from gpt2_jax.sweeps.report.write import write_against

    reference = load_reference(args.against)
    standing = against.compare(run, reference)
    if args.out is not None:
        write_against(standing, reference, args.folder, resolve_path(args.out, "--out"))
    if args.json:
        print(json.dumps(against.as_json(standing, reference), indent=2))
    else:
        print(against.as_text(standing, reference))
    return 0


def _verify(folder: Path, args: argparse.Namespace) -> int:
    from gpt2_jax.sweeps.report.verify import verification, verify

    found = verify(folder, args.steps or _VERIFIED_STEPS, name=args.point, cores=args.cores)
    print(verification(found))
    return 0 if all(match.matches for match in found.matches) and not found.knobs else 1
