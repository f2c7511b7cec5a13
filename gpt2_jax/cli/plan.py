"""Implements `gpt2-jax plan`, which estimates what a run will need before it runs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config
from gpt2_jax.errors import UserError, short_repr
from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.planning.topology import (
    SLICES,
    Topology,
    compile_without_devices,
    libtpu_installed,
    parse_topology,
)

HELP = """\
Estimate a run before it runs: whether it fits, what moves between devices, how long it takes.

For a TPU slice, this compiles the real training step; that needs no TPU, but the extra `tpu`.
Memory and transfers are then the compiler's own figures. Times are estimates that have not been
checked against measurements, and are therefore ranges. For GPUs, or without libtpu, every figure
is computed from shapes alone, which is less accurate.

The exit status is 1 if the run does not fit; the plan is printed all the same."""
EXAMPLES = """\
gpt2-jax plan --config configs/gpt2_small.py --topology v5e:4x4
gpt2-jax plan --config configs/gpt2_xl.py --topology v5e:16x16 --config.mesh.data=16
gpt2-jax plan --config configs/gpt2_xl.py --topology v5e:8x8 --search
gpt2-jax plan --config configs/gpt2_xl.py --topology v5e:16x16 --slices 2 --config.mesh.data=32
gpt2-jax plan --config configs/gpt2_small.py --chip h100 --devices 8 --price 3"""

_SEARCH = {"search_count": 3, "search_seconds": 420.0}  # what --search does by default
_DOES_NOT_FIT = 1  # an exit status
# The limit of devices, seconds and dollars.
_MAX = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="Python file that defines the run's config"
    )
    parser.add_argument(
        "--topology",
        metavar="CHIP:SHAPE",
        help=f"a TPU slice, such as v5e:4x4; the chips are {', '.join(SLICES)}",
    )
    parser.add_argument(
        "--slices",
        type=int,
        default=1,
        metavar="N",
        help="how many slices of --topology the run is on; mesh.data spans them (default: 1)",
    )
    parser.add_argument(
        "--chip", metavar="NAME", help="a chip instead of --topology: h100-sxm, v5e, ..."
    )
    parser.add_argument("--devices", type=int, metavar="N", help="the number of chips, with --chip")
    parser.add_argument(
        "--analytic", action="store_true", help="estimate from shapes alone, with --topology too"
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="try meshes, microbatches and remat, and show the best that fit",
    )
    parser.add_argument(
        "--search_count",
        type=int,
        metavar="N",
        help="how many results --search shows (default: 3)",
    )
    parser.add_argument(
        "--search_seconds",
        type=float,
        metavar="S",
        help="start no further compilation of --search after S seconds (default: 420)",
    )
    parser.add_argument(
        "--price",
        type=float,
        metavar="DOLLARS",
        help="the price of a chip-hour, to show the cost of the run",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of text"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the estimate and returns the exit status, 1 for a run that does not fit."""
    _check(args)
    config = config_lib.load_config(args.config, args.config_overrides)
    topology = None if args.topology is None else parse_topology(args.topology, args.slices)
    chip = topology.chip if topology else chip_named(args.chip)
    devices = topology.num_devices if topology else args.devices
    name = topology.name if topology else f"{devices} x {chip.name}"
    _use_no_devices()
    from gpt2_jax.data.token_sets import resolve_vocab_size
    from gpt2_jax.formats.run_model import resolve_model
    from gpt2_jax.model.defaults import with_dtype
    from gpt2_jax.parallel.mesh import is_unset
    from gpt2_jax.planning import report
    from gpt2_jax.planning.layout import choose_layout
    from gpt2_jax.planning.plan import Plan, analytic_plan, compiled_plan

    config = resolve_vocab_size(resolve_model(config))
    # A chip is a TPU or a GPU, for which dtype=auto means the same.
    config = dataclasses.replace(config, compute=with_dtype(config.compute, "tpu"))
    if topology and not args.analytic and not libtpu_installed():
        print(
            "note: libtpu is not installed, so this is estimated from shapes alone; to compile "
            "for TPUs: pip install 'gpt2_jax[tpu]'",
            file=sys.stderr,
        )
        topology = None
    compiled: Topology | None = None if args.analytic else topology

    def estimate(choice: Config) -> Plan:
        if compiled:
            print(f"compiling for {name}: a minute or two", file=sys.stderr)
            return compiled_plan(choice, compiled)
        return analytic_plan(choice, chip, devices, name, args.slices)

    if not args.search:
        if is_unset(config.mesh) and devices > 1:
            layout = choose_layout(config, chip, devices, args.slices)
            print(f"note: {layout.problem or f'mesh: {layout.text}'}", file=sys.stderr)
            config = dataclasses.replace(config, mesh=layout.mesh)
        plan = estimate(config)
        as_json = report.as_json(plan, args.price)
        print(json.dumps(as_json) if args.json else report.as_text(plan, args.price))
        return 0 if plan.memory.fits else _DOES_NOT_FIT
    from gpt2_jax.planning.search import candidates, search

    choices = candidates(config, chip, devices, args.slices)
    plans = search(
        choices,
        estimate,
        count=args.search_count,
        seconds=args.search_seconds,
        log=lambda line: print(line, file=sys.stderr),
    )
    if not plans:
        raise UserError(
            f"none of {len(choices)} choices was found to fit {name}: use more devices, a smaller "
            f"train.batch_size, or more than --search_seconds={args.search_seconds:g}"
        )
    if args.json:
        print(json.dumps([report.as_json(plan, args.price) for plan in plans]))
    else:
        print(f"{report.as_table(plans)}\n\nthe first one in detail:\n")
        print(report.as_text(plans[0], args.price))
    return 0


def _use_no_devices() -> None:
    compile_without_devices()
    import jax

    # JAX has read the variables before if it was imported before.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_platform_name", None)
    jax.config.update("jax_enable_compilation_cache", False)


def _check(args: argparse.Namespace) -> None:
    if (args.topology is None) == (args.chip is None):
        raise UserError("pass either --topology CHIP:SHAPE, or --chip NAME with --devices N")
    if (args.chip is None) != (args.devices is None):
        raise UserError("--chip and --devices must be passed together")
    if args.topology is None and args.slices != 1:
        raise UserError("--slices needs --topology, which says what a slice is")
    for flag, default in _SEARCH.items():
        if getattr(args, flag) is None:
            setattr(args, flag, default)
        elif not args.search:
            raise UserError(f"--{flag} needs --search, without which it has no effect")
    for flag in ("devices", "search_count", "search_seconds", "price"):
        value = getattr(args, flag)
        if value is not None and not 0 < value <= _MAX:
            raise UserError(
                f"--{flag} must be greater than 0 and at most {_MAX}, not {short_repr(value)}"
            )
