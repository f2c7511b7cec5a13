"""Implements `gpt2-jax train`, which trains a model or resumes a run."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gpt2_jax import config as config_lib
from gpt2_jax.cli import compilation_cache
from gpt2_jax.config import Config
from gpt2_jax.errors import UserError
from gpt2_jax.evals import sources
from gpt2_jax.files.paths import is_remote, resolve_path

HELP = """\
Train a model, or resume the run in a workdir.

The config is a Python file; the same command starts a run and, if the run was interrupted, resumes
it from its newest good checkpoint. --show_knobs lists what can be configured."""
EXAMPLES = """\
gpt2-jax train --config configs/quickstart.py --workdir runs/quickstart
gpt2-jax train --config configs/gpt2_small.py --workdir runs/small --config.train.batch_size=64
gpt2-jax train --config configs/gpt2_xl.py --dry_run --json
gpt2-jax train --config configs/quickstart.py --show_knobs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="Python file that defines the config; FILE:name=value,... sets its parameters",
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="the folder of the run; it is made if it is missing, and resumed if it has a run",
    )
    parser.add_argument(
        "--stop_at_step", type=int, metavar="N", help="save, validate and stop after step N"
    )
    parser.add_argument(
        "--check_sha256",
        action="store_true",
        help="before training, compare the sha256 of every shard with meta.json",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="check the config and show sizes, without training"
    )
    parser.add_argument(
        "--show_knobs",
        action="store_true",
        help="list every knob with its value and meaning, without training",
    )
    compilation_cache.add_argument(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document when the run ends"
    )


def run(args: argparse.Namespace) -> int:
    """Trains the model and returns the exit status."""
    config = config_lib.load_config(args.config, args.config_overrides)
    if args.show_knobs and args.dry_run:
        raise UserError("--show_knobs and --dry_run cannot be combined")
    if args.check_sha256 and args.dry_run:
        raise UserError("--check_sha256 and --dry_run cannot be combined: a dry run reads no data")
    if args.show_knobs:
        _show_knobs(config, args.json)
        return 0
    if args.stop_at_step is not None and args.stop_at_step < 1:
        raise UserError(f"--stop_at_step must be at least 1, not {args.stop_at_step}")
    if not args.dry_run:
        if args.workdir is None:
            raise UserError("--workdir DIR is missing: name the folder of the run")
        resolve_path(args.workdir, "--workdir")
    sources.select_of_config(config)
    # These imports take seconds, so they come after typos have been reported.
    from gpt2_jax import experiment
    from gpt2_jax.parallel.distributed import initialize, is_primary
    from gpt2_jax.parallel.malloc import keep_freed_memory
    from gpt2_jax.parallel.programs import leave_run_info

    keep_freed_memory()
    initialize()
    compilation_cache.apply(args)
    if args.dry_run:
        report = experiment.dry_run(config)
        if is_primary():
            _note_missing_data(config)
            print(json.dumps(report) if args.json else _readable(report))
        return 0
    _note_late_stop(args.stop_at_step, config)
    with leave_run_info():
        results = experiment.train(
            config,
            args.workdir,
            stop_at_step=args.stop_at_step,
            check_sha256=args.check_sha256,
            compare_compressors=True,
        )
    if is_primary():
        if "compared_bytes" in results and "eval/bits_per_byte" in results:
            print(_comparison(results), file=sys.stderr)
        if args.json:
            print(json.dumps({"workdir": args.workdir, **results}))
    return 0


def _note_late_stop(stop_at_step: int | None, config: Config) -> None:
    """Prints a note if the run ends before the step at which it was to stop."""
    from gpt2_jax.parallel.distributed import is_primary
    from gpt2_jax.parallel.platforms import check_platforms

    if stop_at_step is None or stop_at_step <= config.train.total_steps:
        return
    check_platforms()
    if is_primary():
        print(
            f"note: --stop_at_step {stop_at_step} has no effect, because the run ends at "
            f"train.total_steps={config.train.total_steps}",
            file=sys.stderr,
        )


def _comparison(results: dict[str, float]) -> str:
    """Returns a line with the held-out loss beside what general-purpose compressors reach."""
    suffix = " bits_per_byte"
    others = [
        f"{key.removesuffix(suffix)} {value:.3f}"
        for key, value in results.items()
        if key.endswith(suffix)
    ]
    return (
        f"held-out loss {results['eval/loss']:.4f} nats per token = "
        f"{results['eval/bits_per_byte']:.3f} bits per byte (on the same "
        f"{results['compared_bytes']:,} bytes: {', '.join(others)})"
    )


def _note_missing_data(config: Config) -> None:
    """Prints a note if data that a run needs is missing; the report itself needs none."""
    from gpt2_jax.data.folders import require_folder
    from gpt2_jax.prepare.example_files import example_files

    try:
        on_disk = [path for path in config.data.weights if not is_remote(path)]
        unread = [path for path in on_disk if example_files(path) is not None]
        on_disk = [path for path in on_disk if path not in unread]
        missing = [path for path in on_disk if not resolve_path(path).is_dir()]
        for path in (path for path in missing if resolve_path(path).exists()):
            require_folder(path)  # which says that it is a file
    except UserError as error:
        print(f"note: {error}", file=sys.stderr)
        return
    if unread:
        print(f"note: {', '.join(unread)}: not read in a dry run", file=sys.stderr)
    if missing:
        print(
            f"note: no data folder {', '.join(missing)}: make it with gpt2-jax prepare, or name "
            "another, or a .jsonl file of examples",
            file=sys.stderr,
        )


def _readable(report: dict[str, Any]) -> str:
    memory = "  ".join(
        f"{kind} {size / 2**20:,.1f}" for kind, size in report["memory_bytes"].items()
    )
    count, trained = report["parameters"], report["trained_parameters"]
    frozen = "" if trained == count else f", {trained:,} of them trained"
    return (
        f"parameters       {count:,}{frozen}\n"
        f"tokens per step  {report['tokens_per_step']:,}\n"
        f"total tokens     {report['total_tokens']:,}\n"
        f"FLOPs per step   {report['flops_per_step']:.3g} (6N + 6LTd per token)\n"
        f"mesh             {report['layout']}\n"
        f"dtype            {report['dtype']}\n"
        f"attention        {report['attention']}\n"
        f"MiB per device   {memory}  (activations not included)"
    )


def _show_knobs(config: Config, as_json: bool) -> None:
    values = config_lib.to_dict(config)
    if as_json:
        print(json.dumps(values))
        return
    for knob in config_lib.knobs():
        section, name = knob.key.split(".")
        choices = f" ({', '.join(map(str, knob.choices))})" if knob.choices else ""
        print(f"--config.{knob.key}={values[section][name]}\n    {knob.help}{choices}")
