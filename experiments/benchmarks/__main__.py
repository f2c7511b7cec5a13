"""Measures gpt2_jax beside other programs, in turn, and writes results and report.

    python -m experiments.benchmarks --suite cpu
    python -m experiments.benchmarks --suite gpu --peers python3 --wheels wheels/
    python -m experiments.benchmarks --suite cpu --only step_quickstart,load --again

docs/performance.md says how it measures. Run it from the root of the repository.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from experiments.benchmarks import machine
from experiments.benchmarks.case import Case
from experiments.benchmarks.driver import Settings, run, write_report
from experiments.benchmarks.processes import ROOT
from experiments.benchmarks.results import Results
from experiments.benchmarks.suites import SUITES
from experiments.benchmarks.wheels import CannotInstall

_NEEDS = """\
What needs what:
  --suite gpu            an NVIDIA GPU; --list and --size tiny do without
  torch, transformers    the interpreter of --peers, which `make compare-env` makes; with
                         --peers none, gpt2_jax is measured alone
  CTranslate2            the same interpreter; it is left out where it is not installed
  run_shakespeare_char   a network, or tinyshakespeare.txt in the folder $GPT2_JAX_DATA
  plots                  the extra `plots` of this interpreter
  --list, --report       nothing but --suite"""
_SHOWN_RESULTS = "experiments/benchmarks/results"
_RESULTS = ROOT / _SHOWN_RESULTS


class _Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns the exit status, which `driver.run` explains."""
    parser = _parser()
    args = parser.parse_args(words)
    results = args.out / f"{args.suite}.json"
    if args.rounds is not None and args.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {args.rounds}")
    for flag in ("minutes", "timeout"):
        if getattr(args, flag) is not None and getattr(args, flag) <= 0:
            parser.error(f"--{flag} must be greater than 0, not {getattr(args, flag):g}")
    cases = _cases(args.suite, args.size == "tiny")
    if args.list:
        print("\n".join(map(_described, cases)))
        print(f"\n{_NEEDS}")
        return 0
    if args.report:
        if not results.exists():
            parser.error(f"--report: there are no results in {results}")
        write_report(Results(results), args.suite)
        return 0
    chosen = _choose(parser, cases, args.only)
    settings = _settings(parser, args)
    try:
        return run(chosen, [case.name for case in cases], settings)
    except KeyboardInterrupt:
        print(f"interrupted: finished cases are kept in {args.out}", file=sys.stderr)
        return 130
    except CannotInstall as error:
        parser.error(f"--wheels {args.wheels}: {error}")


def _settings(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Settings:
    """Returns what the flags say, if it can be measured here and written there."""
    if args.suite == "gpu" and args.size == "full" and machine.describe()["gpu"] is None:
        parser.error("--suite gpu: this machine has no NVIDIA GPU; --suite cpu measures its CPU")
    peers = _interpreter(parser, args.peers)
    if args.wheels is not None and not [*args.wheels.glob("*.whl")]:
        parser.error(
            f"--wheels {args.wheels} has no wheels: "
            "get them with python -m experiments.benchmarks.carry --out DIR"
        )
    if args.size == "tiny" and args.out == _RESULTS:
        parser.error("--size tiny needs --out DIR: it would replace results in full size")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {args.out}: cannot be written: {error.strerror}")
    return Settings(
        suite=args.suite,
        tiny=args.size == "tiny",
        peers=peers,
        rounds=args.rounds,
        out=args.out,
        wheels=args.wheels,
        commit=args.commit,
        again=args.again,
        timeout=args.timeout,
        minutes=args.minutes,
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m experiments.benchmarks",
        description=(__doc__ or "").splitlines()[0],
        epilog=_NEEDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--suite", choices=SUITES, required=True, help="the device to measure")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny: for tests")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="measure these cases alone")
    parser.add_argument(
        "--peers",
        default=".venv-compare/bin/python",
        metavar="PYTHON",
        help="interpreter with torch and transformers, as `make compare-env` makes it; none: "
        "measure gpt2_jax alone",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 5, and 1 for whole runs")
    parser.add_argument(
        "--again", action="store_true", help="measure again what is measured already"
    )
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="wheels to install first")
    parser.add_argument("--commit", help="commit in the results, where there is no git")
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="per answer"
    )
    parser.add_argument(
        "--out", type=Path, default=_RESULTS, metavar="DIR", help=f"default: {_SHOWN_RESULTS}"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="begin no further case after so many"
    )
    parser.add_argument("--report", action="store_true", help="write only the report, from results")
    parser.add_argument("--list", action="store_true", help="list the cases of the suite")
    return parser


def _described(case: Case) -> str:
    """Returns a line with the name, what is measured, and which other programs do the same."""
    others = ", ".join(subject.name for subject in case.subjects[1:])
    return f"{case.name:28} {case.title}" + (f"; beside {others}" if others else "")


def _cases(suite: str, tiny: bool) -> list[Case]:
    gpu = machine.describe()["gpu"]
    return SUITES[suite](tiny, gpu["memory_bytes"] if gpu else 0)


def _choose(parser: argparse.ArgumentParser, cases: list[Case], only: str | None) -> list[Case]:
    if only is None:
        return cases
    names = [name for name in only.split(",") if name]
    known = {case.name: case for case in cases}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        missing = ", ".join(unknown) or repr(only)
        parser.error(f"--only: no case {missing}; there are {', '.join(known)}")
    return [case for case in cases if case.name in names]


def _interpreter(parser: argparse.ArgumentParser, name: str) -> str | None:
    """Returns the path of the peers' interpreter, which must have torch and transformers."""
    if name == "none":
        return None
    path = shutil.which(name)
    if path is None:
        parser.error(
            f"--peers {name} is no interpreter: make it with `make compare-env`, or leave the "
            "other programs out with --peers none"
        )
    try:
        found = machine.versions(path, {}).get("peers", {})
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        parser.error(f"--peers {name}: cannot be run: {error}")
    if missing := [package for package in ("torch", "transformers") if package not in found]:
        parser.error(f"--peers {name} lacks {', '.join(missing)}")
    return os.path.abspath(path)


if __name__ == "__main__":
    sys.exit(main())
