"""Implements `gpt2-jax sweep`, which runs the points of a sweep file."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt2_jax.cli.process import only_cpus
from gpt2_jax.config import Config
from gpt2_jax.errors import UserError, print_stderr
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.parallel.gpus import local_gpu
from gpt2_jax.sweeps import cost
from gpt2_jax.sweeps.engines import choose
from gpt2_jax.sweeps.engines.choose import ENGINES
from gpt2_jax.sweeps.engines.slice_follower import Follower
from gpt2_jax.sweeps.file import load_sweep
from gpt2_jax.sweeps.folder import SweepFolder
from gpt2_jax.sweeps.runner import SweepEnd, check_points, points_so_far, run_sweep
from gpt2_jax.sweeps.stages import Stages

HELP = """\
Train all models of a sweep file, or resume the sweep in a folder.

The file is Python: its get_sweep() returns a gpt2_jax.sweeps.Sweep. All points are checked before
one starts. Each point is a run of its own, in DIR/points/NAME/run; the same command resumes the
sweep where it was interrupted, and tries failed points again. DIR/results.csv has a line for each
point. The exit status is 0 if every point is done or has diverged, which is a result too, and 1 if
one has failed.

--engine local runs points on this machine. slurm submits each stage as one array job and waits for
it; Ctrl-C leaves the jobs alone, and the same command collects their results later. slice is for a
command that a launcher starts on every host of a TPU slice or a cluster: all of them train one
point at a time together."""
EXAMPLES = """\
gpt2-jax sweep --sweep sweeps/positions.py --dry_run
gpt2-jax sweep --sweep sweeps/positions.py --out runs/positions --workers 2
gpt2-jax sweep --sweep sweeps/positions.py --out runs/positions --devices_per_point 1
gpt2-jax sweep --sweep sweeps/positions.py --out /shared/positions --engine slurm \
    --sbatch='--time=2:00:00 --gpus-per-node=1'
gpt2-jax sweep --sweep sweeps/positions.py --out runs/positions --print_commands"""

_FASTEST = 1e12  # tokens per second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    _add_sweep(parser.add_argument_group("sweep"))
    _add_engine(parser.add_argument_group("what runs the points"))
    _add_preview(parser.add_argument_group("without training"))
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document when the sweep ends"
    )


def _add_sweep(group: argparse._ArgumentGroup) -> None:
    """Declares what is swept, and where it goes."""
    group.add_argument(
        "--sweep", required=True, metavar="FILE", help="Python file that defines get_sweep()"
    )
    group.add_argument(
        "--out",
        metavar="DIR",
        help="the folder of the sweep; it is made if it is missing, and resumed if it has one",
    )


def _add_engine(group: argparse._ArgumentGroup) -> None:
    """Declares what runs the points."""
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default="local",
        help="what runs the points: this machine (local, the default), an array job (slurm), or "
        "all processes of a launcher together (slice)",
    )
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="points to run at the same time, each on its part of the cores (default: 1, or as "
        "many as --devices_per_point leaves room for; with slurm, as many as Slurm starts)",
    )
    group.add_argument(
        "--devices_per_point",
        type=int,
        metavar="K",
        help="NVIDIA GPUs of each point, which CUDA_VISIBLE_DEVICES or Slurm gives it",
    )
    group.add_argument(
        "--sbatch", metavar="OPTIONS", help="options of sbatch for --engine slurm, as one word"
    )


def _add_preview(group: argparse._ArgumentGroup) -> None:
    """Declares what is shown instead of training."""
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="check the sweep and show its points, tokens, time and the smallest differences that "
        "it is expected to find, without training",
    )
    group.add_argument(
        "--tokens_per_second",
        type=float,
        metavar="N",
        help="the speed of one point, for the time that --dry_run shows (default: measured on the "
        "points that --out has)",
    )
    group.add_argument(
        "--chip",
        metavar="NAME",
        help="a GPU or TPU, such as h100, for which --dry_run plans the time of points that have "
        "--devices_per_point of it (default: the GPU of this machine, if it has one)",
    )
    group.add_argument(
        "--noise",
        metavar="S",
        help="the standard deviation of a difference of two runs of one seed, or a finished sweep "
        "to take it from: --dry_run then shows differences in units of the metric",
    )
    group.add_argument(
        "--print_commands",
        action="store_true",
        help="print one command a point, for any other scheduler, without training; afterwards the "
        "sweep itself collects the results",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the sweep and returns the exit status."""
    _check(args)
    flags = (args.engine, args.workers, args.devices_per_point, args.sbatch)
    choose.check(*flags)
    chosen = None  # what is only shown may be for another machine
    if not (args.dry_run or args.print_commands):
        chosen = choose.choose(*flags, on_tpu=args.engine == choose.SLICE and _is_tpu())
    stages = Stages(load_sweep(args.sweep))
    folder = None
    if args.out is not None:
        folder = SweepFolder(resolve_path(args.out, "--out"))
        folder.check(stages)
    if args.dry_run:
        _dry_run(args, stages, folder)
        return 0
    assert folder is not None and args.out is not None  # as _check has seen
    if chosen is None:
        _print_commands(stages, folder)
        return 0
    if chosen.process:
        check_points(stages)
        return Follower(folder.path, chosen.process, log=print_stderr).run()
    end = run_sweep(
        stages,
        args.sweep,
        args.out,
        lambda folder, base, log: choose.make(chosen, folder, base, args.out, log),
    )
    _show_end(end, args)
    return end.exit_status


def _dry_run(args: argparse.Namespace, stages: Stages, folder: SweepFolder | None) -> None:
    # Imported here, as scipy takes a second.
    from gpt2_jax.sweeps.design import design_json, design_of, design_text
    from gpt2_jax.sweeps.report.noise import deviation_of

    deviation, source = None, ""
    if args.noise is not None:
        deviation, source = deviation_of(args.noise, stages.sweep.metric)
    points = points_so_far(stages, folder)
    report = cost.estimate(
        stages,
        folder,
        points,
        workers=choose.points_at_once(args.engine, args.workers, args.devices_per_point),
        tokens_per_second=args.tokens_per_second,
        planner=_planner(args.chip, args.devices_per_point or 1),
    )
    design = design_of(stages, deviation, source)
    if args.json:
        print(cost.as_json(report | {"design": design_json(design)}, points))
    else:
        print(f"{cost.as_text(report, points)}\n{design_text(design)}")


def _planner(named: str | None, devices: int) -> cost.Planner | None:
    """Returns what plans the time for a chip, or for the GPUs of this machine; None on CPUs."""
    chip = local_gpu(Path("/proc")) if named is None else chip_named(named)
    if chip is None:
        return None

    def seconds(configs: Sequence[Config]) -> Sequence[tuple[float, float]]:
        from gpt2_jax.planning.runs import run_seconds  # which imports JAX

        return run_seconds(configs, chip, devices)

    return cost.Planner(f"{devices} x {chip.name}", seconds)


def _is_tpu() -> bool:
    """Returns whether this machine may be a host of a TPU slice."""
    has_library = importlib.util.find_spec("libtpu") is not None
    return has_library and not only_cpus(os.environ, Path("/dev"))


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
    for flag in ("tokens_per_second", "chip", "noise"):
        if getattr(args, flag) is not None and not args.dry_run:
            raise UserError(f"--{flag} needs --dry_run, without which it has no effect")
    if args.tokens_per_second is not None and not 0 < args.tokens_per_second <= _FASTEST:
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
