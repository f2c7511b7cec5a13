"""`gpt2-jax sample`: generate text from a model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gpt2_jax.cli import MODEL_HELP
from gpt2_jax.errors import UserError

HELP = "Generate text from a model, from scratch or after a prompt."
EXAMPLES = """\
gpt2-jax sample --model runs/quickstart
gpt2-jax sample --model runs/quickstart --prompt "def " --num_samples 3 --temperature 0.8 --top_k 50
gpt2-jax sample --model runs/quickstart --prompt "import " --stop ":" --json
gpt2-jax sample --model runs/quickstart --interactive"""

# They are generated together, each with a cache of its own.
_MOST_SAMPLES = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument("--model", required=True, metavar="M", help=MODEL_HELP)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompt", metavar="TEXT", help="text to go on from; default: none")
    source.add_argument("--prompt_file", metavar="FILE", help="UTF-8 file with the prompt")
    source.add_argument(
        "--interactive", action="store_true", help="read prompts from standard input, a line each"
    )
    parser.add_argument("--num_samples", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--max_new_tokens", type=int, metavar="N", help="default: what the context has room for"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="0 is greedy; default: 1"
    )
    parser.add_argument("--top_k", type=int, default=0, metavar="K", help="0 keeps all; default: 0")
    parser.add_argument("--top_p", type=float, default=1.0, metavar="P", help="default: 1")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a sample at this text; repeatable",
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same text; default: 0")
    parser.add_argument("--stream", action="store_true", help="show text as it comes (one sample)")
    parser.add_argument("--json", action="store_true", help="print one JSON document a prompt")


def run(args: argparse.Namespace) -> int:
    """Samples; returns the exit status."""
    _check(args)
    from gpt2_jax import api
    from gpt2_jax.inference.sampling import SamplingOptions

    options = SamplingOptions(args.temperature, args.top_k, args.top_p)
    prompt = _read_prompt(args)
    model = api.load(args.model)
    if args.interactive:
        return _converse(model, args, options)
    _answer(model, prompt, args, options)
    return 0


def _check(args: argparse.Namespace) -> None:
    if not 1 <= args.num_samples <= _MOST_SAMPLES:
        raise UserError(
            f"--num_samples must be from 1 to {_MOST_SAMPLES}, not {args.num_samples}; "
            "another --seed gives others"
        )
    if args.stream and args.json:
        raise UserError("--stream and --json exclude each other")
    if args.stream and args.num_samples > 1:
        raise UserError(f"--stream shows one sample; drop it or --num_samples={args.num_samples}")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed must be from 0 to {2**32 - 1}, not {args.seed}")
    if "" in args.stop:
        raise UserError("--stop needs a text that is not empty")


def _read_prompt(args: argparse.Namespace) -> str:
    if args.prompt_file is None:
        return args.prompt or ""
    try:
        # Bytes: reading as text would turn \r\n into \n, which `prepare` does not.
        return Path(args.prompt_file).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{args.prompt_file} is not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise UserError(f"can't read --prompt_file {args.prompt_file}: {error.strerror}") from error


def _converse(model: Any, args: argparse.Namespace, options: Any) -> int:
    """A prompt a line until the end of input; a mistake is told and the next line read."""
    terminal = sys.stdin.isatty()
    if terminal:
        print("A prompt a line; Ctrl-D ends.", file=sys.stderr)
        import readline  # noqa: F401  line editing and history for input()
    args.stream = not args.json and args.num_samples == 1
    while True:
        try:
            prompt = input("> " if terminal else "")
        except EOFError:
            return 0
        except UnicodeDecodeError as error:
            raise UserError("standard input is not UTF-8") from error
        try:
            _answer(model, prompt, args, options)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print("\ninterrupted; Ctrl-D ends", file=sys.stderr)


def _answer(model: Any, prompt: str, args: argparse.Namespace, options: Any) -> None:
    wanted: dict[str, Any] = {
        "max_new_tokens": args.max_new_tokens,
        "options": options,
        "stop": args.stop,
        "seed": args.seed,
    }
    if args.stream:
        # The first piece comes before anything is printed, for what is wrong shows by then.
        pieces = model.stream(prompt, **wanted)
        print(prompt + next(pieces, ""), end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        return
    samples = model.generate(prompt, num_samples=args.num_samples, **wanted)
    if args.json:
        fields = [vars(sample) for sample in samples]
        print(json.dumps({"prompt": prompt, "samples": fields}), flush=True)
        return
    for i, sample in enumerate(samples):
        if args.num_samples > 1:
            print(f"--- sample {i + 1} of {args.num_samples} ({sample.finish_reason})")
        print(prompt + sample.text, flush=True)
