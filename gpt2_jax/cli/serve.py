"""Implements `gpt2-jax serve`, which answers requests for text over HTTP."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping

from gpt2_jax.cli import DTYPE_HELP, EMA_HELP, MODEL_HELP, compilation_cache
from gpt2_jax.config.compute import DTYPES
from gpt2_jax.errors import UserError, print_stderr, warn
from gpt2_jax.files.extras import import_extra

HELP = "Serve models over HTTP, with the completions API of OpenAI."
EXAMPLES = """\
gpt2-jax serve --model runs/quickstart
gpt2-jax serve --model small=runs/small --model big=runs/big --port 9000
gpt2-jax serve --model runs/quickstart --host 0.0.0.0 --allowed_host gpt2.example --api_key_file k
gpt2-jax serve --model runs/rotary --max_length 4096 --slots 16"""
_MOST_SLOTS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    _add_models(parser.add_argument_group("models"))
    _add_answers(parser.add_argument_group("how requests are answered"))
    _add_protection(parser.add_argument_group("where, and who is answered"))


def _add_models(group: argparse._ArgumentGroup) -> None:
    """Declares which models are served."""
    group.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="[NAME=]M",
        help=f"{MODEL_HELP}; NAME is what requests call it; may be repeated",
    )
    group.add_argument("--ema", action="store_true", help=EMA_HELP)
    group.add_argument("--dtype", choices=DTYPES, help=DTYPE_HELP)
    group.add_argument(
        "--steps",
        type=int,
        default=1,
        metavar="N",
        help="how many saved steps of a run, asked for as NAME@STEP, stay in memory; default: 1",
    )
    compilation_cache.add_argument(group)


def _add_answers(group: argparse._ArgumentGroup) -> None:
    """Declares how much is generated at a time, and what is offered."""
    group.add_argument(
        "--slots",
        type=int,
        default=8,
        metavar="N",
        help="how many texts each model generates at a time; bits of a text depend on it; "
        "default: 8",
    )
    group.add_argument(
        "--max_length",
        type=int,
        metavar="N",
        help="the most tokens of a text, prompt included; default: the model's context",
    )
    group.add_argument(
        "--queue_seconds",
        type=float,
        default=300.0,
        metavar="S",
        help="how long a request waits for its turn at most; default: 300",
    )
    group.add_argument(
        "--grace",
        type=float,
        default=30.0,
        metavar="S",
        help="how long texts that run may go on after SIGTERM; default: 30",
    )
    group.add_argument(
        "--lenient", action="store_true", help="ignore unknown fields instead of refusing them"
    )
    group.add_argument(
        "--no_explorer",
        action="store_true",
        help="offer no page to look into the models, and none of its requests",
    )


def _add_protection(group: argparse._ArgumentGroup) -> None:
    """Declares the address, and whose requests are answered."""
    group.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="where to listen; default: 127.0.0.1"
    )
    group.add_argument(
        "--port", type=int, default=8000, metavar="N", help="0 is any free one; default: 8000"
    )
    group.add_argument(
        "--allowed_host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that requests may be sent to, beside localhost and addresses; * for all; may "
        "be repeated",
    )
    group.add_argument(
        "--api_key_file",
        metavar="FILE",
        help="keys, one a line, of which a request must have one as its bearer token",
    )


def run(args: argparse.Namespace) -> int:
    """Serves until a signal ends it, and returns the exit status."""
    _check(args)
    for package in ("starlette", "uvicorn", "sse_starlette", "prometheus_client", "markdown_it"):
        import_extra(package, extra="serve", needed_by="gpt2-jax serve")
    from gpt2_jax.parallel.compilation_cache import keep_compiled_programs
    from gpt2_jax.serve import models as models_lib
    from gpt2_jax.serve.app import Policy, make_app
    from gpt2_jax.serve.explorer import Explorer
    from gpt2_jax.serve.metrics import Metrics
    from gpt2_jax.serve.security import read_keys
    from gpt2_jax.serve.served import Limits, load_served
    from gpt2_jax.serve.server import Server, bound_socket, is_loopback

    names = models_lib.named_models(args.model)
    keys = () if args.api_key_file is None else read_keys(args.api_key_file)
    # A port that is taken is found before minutes of loading.
    bound = bound_socket(args.host, args.port)
    if not keys and not is_loopback(bound):
        warn(
            f"--host {args.host} is open to other machines: without --api_key_file, all of them "
            "are answered"
        )
    compilation_cache.apply(args)
    keep_compiled_programs()
    if args.max_length is not None:
        _check_length(args.max_length, names)
    limits = Limits(
        args.slots, args.max_length, args.queue_seconds, args.ema, args.dtype, args.steps
    )
    metrics = Metrics()
    served = [load_served(name, path, limits, metrics) for name, path in names.items()]
    models = models_lib.Models(served, limits, metrics)
    policy = Policy(hosts=[args.host, *args.allowed_host], keys=keys, lenient=args.lenient)
    explorer = None if args.no_explorer else Explorer(models, policy)

    def on_ready(url: str) -> None:
        print_stderr("ready" if explorer is None else f"ready: open {_for_browsers(url)}/")
        if explorer is not None:
            explorer.warm()

    server = Server(
        make_app(models, metrics, policy, explorer),
        models,
        grace=args.grace,
        on_start=lambda url: print_stderr(f"serving {', '.join(names)} on {url}"),
        on_ready=on_ready,
    )
    server.run([bound])
    if explorer is not None:
        explorer.close()
    if server.failure:
        raise server.failure
    threads = [model.worker.alive for model in models.all]
    if any(threads) or models.steps.loading or (explorer and explorer.busy):
        # A thread inside of XLA cannot be ended, and would crash while Python exits.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _check_length(length: int, models: Mapping[str, str]) -> None:
    """Checks that all models can compute so many tokens, before any of them is loaded."""
    from gpt2_jax.formats.load import open_model
    from gpt2_jax.model.lengths import limit

    for name, path in models.items():
        with open_model(path) as reader:
            config = reader.config.model
        if length > config.longest:
            raise UserError(
                f"--max_length={length} for {name} exceeds {limit(config)}: give "
                f"{config.longest} at most, and let requests go on beyond it with "
                "context_overflow=slide"
            )


def _for_browsers(url: str) -> str:
    """Returns the address at which a browser on this machine finds the server."""
    return url.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")


def _check(args: argparse.Namespace) -> None:
    ranges = {
        "port": (0, 65535),
        "slots": (1, _MOST_SLOTS),
        "steps": (0, 64),
        "grace": (0, 86400),
        "queue_seconds": (0, 86400),
    }
    for name, (low, high) in ranges.items():
        value = getattr(args, name)
        if not math.isfinite(value) or not low <= value <= high:
            raise UserError(f"--{name} must be between {low} and {high}, not {value}")
    if args.max_length is not None and args.max_length < 2:
        raise UserError(f"--max_length must be at least 2, not {args.max_length}")
    if not args.host or "" in args.model or "" in args.allowed_host:
        raise UserError("--host, --model and --allowed_host must not be empty")
