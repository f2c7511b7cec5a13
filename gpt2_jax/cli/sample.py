"""Implements `gpt2-jax sample`, which generates text from a model."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gpt2_jax.cli import (
    DTYPE_HELP,
    EMA_HELP,
    MODEL_HELP,
    compilation_cache,
    sample_file,
    sample_music,
    sampling_flags,
    texts,
)
from gpt2_jax.config.arguments import LARGEST_SEED, MOST_SAMPLES
from gpt2_jax.config.compute import DTYPES
from gpt2_jax.errors import UserError

HELP = "Generate text with a model, with or without a prompt."
EXAMPLES = """\
gpt2-jax sample --model runs/quickstart
gpt2-jax sample --model runs/quickstart --prompt "def " --num_samples 3 --temperature 0.8 --top_k 50
gpt2-jax sample --model runs/quickstart --prompt "import " --stop ":" --json
gpt2-jax sample --model downloads/protein_model --prompt_tokens 5,8,13
gpt2-jax sample --model runs/quickstart --repetition_penalty 1.2 --logit_bias 256=-100
gpt2-jax sample --model runs/quickstart --max_new_tokens 3000 --context_overflow slide
gpt2-jax sample --model runs/quickstart --prompts prompts.jsonl --out results.jsonl
gpt2-jax sample --model runs/music --prompt_midi chorale.mid --prompt_beats 16 --out new.mid
gpt2-jax sample --model runs/quickstart --interactive"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    _add_model(parser.add_argument_group("model"))
    _add_prompt(parser.add_argument_group("what to continue"))
    sample_music.add_arguments(parser.add_argument_group("music"))
    _add_samples(parser.add_argument_group("samples"))
    sampling_flags.add_arguments(parser.add_argument_group("how tokens are drawn"))
    _add_output(parser.add_argument_group("output"))
    compilation_cache.add_argument(parser)


def _add_model(group: argparse._ArgumentGroup) -> None:
    """Declares the model."""
    group.add_argument("--model", required=True, metavar="M", help=MODEL_HELP)
    group.add_argument("--ema", action="store_true", help=EMA_HELP)
    group.add_argument("--dtype", choices=DTYPES, help=DTYPE_HELP)


def _add_prompt(group: argparse._ArgumentGroup) -> None:
    """Declares the prompt, or where prompts come from."""
    source = group.add_mutually_exclusive_group()
    source.add_argument("--prompt", metavar="TEXT", help="the text to continue; default: none")
    source.add_argument("--prompt_file", metavar="FILE", help="a UTF-8 file with the prompt")
    source.add_argument(
        "--prompt_tokens",
        metavar="IDS",
        help="the token ids to continue, such as 1,2,3; for models without a tokenizer too",
    )
    source.add_argument(
        "--prompts",
        metavar="FILE",
        help='a file of prompts, one JSON object per line: {"prompt": TEXT} or {"prompt_tokens": '
        "[IDS]}; needs --out",
    )
    source.add_argument(
        "--prompt_midi",
        metavar="FILE",
        help="a MIDI file to continue, with a model of music; needs --out FILE.mid",
    )
    source.add_argument(
        "--interactive", action="store_true", help="read prompts from standard input, one per line"
    )


def _add_samples(group: argparse._ArgumentGroup) -> None:
    """Declares how many texts are generated, and how long they are."""
    group.add_argument(
        "--num_samples", type=int, default=1, metavar="N", help="how many samples; default: 1"
    )
    group.add_argument(
        "--max_new_tokens",
        type=int,
        metavar="N",
        help="the most tokens to generate; default: as many as the context has room for; only "
        "model.position=learned allows no more",
    )
    group.add_argument(
        "--context_overflow",
        choices=("error", "slide"),
        default="error",
        help="when the model has no more positions: refuse the request, or read the last half of "
        "the text again and go on; default: error",
    )
    group.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a sample before this text; may be repeated",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the same seed gives the same text; default: 0",
    )
    group.add_argument(
        "--slots",
        type=int,
        metavar="N",
        help="how many samples to generate at a time, on which the last bits of a text depend: "
        "those of a server with as many slots give its text again; default: all, up to 32, and 8 "
        "with --prompts",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    """Declares where the texts go."""
    group.add_argument(
        "--out",
        metavar="FILE",
        help="where the results of --prompts go, in order: each line with its samples. If there is "
        "such a file, the same command goes on behind its last whole line. FILE.settings.json says "
        "what they were made with, and a start with anything else is refused. With --prompt_midi: "
        "the MIDI file to write",
    )
    group.add_argument(
        "--stream", action="store_true", help="print text while it is generated (one sample)"
    )
    group.add_argument("--json", action="store_true", help="print one JSON document per prompt")


def run(args: argparse.Namespace) -> int:
    """Generates the samples and returns the exit status."""
    _check(args)
    from gpt2_jax import api

    options = sampling_flags.options(args)
    prompt = _read_prompt(args)
    prompts = None if args.prompts is None else sample_file.read(args.prompts)
    compilation_cache.apply(args)
    if prompts is not None:
        with sample_file.locked(args.out):  # before minutes of loading
            model = api.load(args.model, ema=args.ema, dtype=args.dtype)
            settings = _settings(args, options) | {"num_samples": args.num_samples}
            sample_file.run(model, prompts, args.out, settings, ema=args.ema)
        return 0
    model = api.load(args.model, ema=args.ema, dtype=args.dtype)
    if args.prompt_midi is not None:
        sample_music.run(model, args, _settings(args, options))
        return 0
    if args.interactive:
        return _converse(model, args, options)
    _answer(model, prompt, args, options)
    return 0


def _check(args: argparse.Namespace) -> None:
    if not 1 <= args.num_samples <= MOST_SAMPLES:
        raise UserError(
            f"--num_samples must be between 1 and {MOST_SAMPLES}, not {args.num_samples}; another "
            "--seed gives more"
        )
    if args.stream and args.json:
        raise UserError("--stream and --json exclude each other")
    sample_music.check(args)
    if args.prompt_midi is None and (args.prompts is None) != (args.out is None):
        raise UserError(
            "--prompts and --out need each other: prompts are read from one file, and "
            "results written to the other"
        )
    if args.prompts is not None and (args.stream or args.json):
        raise UserError("--prompts writes JSON lines to --out: remove --stream and --json")
    if args.stream and args.num_samples > 1:
        raise UserError(
            f"--stream shows one sample: remove it, or --num_samples={args.num_samples}"
        )
    if args.slots is not None and not 1 <= args.slots <= MOST_SAMPLES:
        raise UserError(f"--slots must be between 1 and {MOST_SAMPLES}, not {args.slots}")
    if not 0 <= args.seed <= LARGEST_SEED:
        raise UserError(f"--seed must be between 0 and {LARGEST_SEED}, not {args.seed}")
    if "" in args.stop:
        raise UserError("--stop must not be empty: name the text to stop at")


def _read_prompt(args: argparse.Namespace) -> str | list[int]:
    """Returns the text, or the ids of --prompt_tokens."""
    if args.prompt_tokens is not None:
        return texts.parse_ids(args.prompt_tokens, "--prompt_tokens")
    if args.prompt_file is None:
        return args.prompt or ""
    return texts.read_text(args.prompt_file, "--prompt_file")


def _converse(model: Any, args: argparse.Namespace, options: Any) -> int:
    """Answers one prompt per line until the end of input; an error does not end the loop."""
    terminal = sys.stdin.isatty()
    if terminal:
        print("Type one prompt per line; Ctrl-D ends.", file=sys.stderr)
        import readline  # noqa: F401  gives input() line editing and history
    args.stream = not args.json and args.num_samples == 1
    while True:
        try:
            # In files of Windows, a line ends with \r\n.
            line = input("> " if terminal else "").removesuffix("\r")
        except EOFError:
            return 0
        except UnicodeDecodeError as error:
            raise UserError("standard input is not UTF-8") from error
        try:
            # A model without a tokenizer takes a line of ids.
            ids = bool(line) and not model.takes_text
            _answer(model, texts.parse_ids(line, "--prompt_tokens") if ids else line, args, options)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print("\ninterrupted; Ctrl-D ends", file=sys.stderr)


def _settings(args: argparse.Namespace, options: Any) -> dict[str, Any]:
    return {
        "max_new_tokens": args.max_new_tokens,
        "options": options,
        "stop": args.stop,
        "seed": args.seed,
        "num_slots": args.slots,
        "context_overflow": args.context_overflow,
    }


def _answer(model: Any, prompt: str | list[int], args: argparse.Namespace, options: Any) -> None:
    if isinstance(prompt, str):
        # As the model reads it: a `words` tokenizer has a space behind each word.
        shown = model.tokenizer.decode(model.tokenizer.encode(prompt)) if prompt else ""
    else:
        shown = model.tokenizer.decode(model.token_ids(prompt))
    if not model.takes_text:
        shown = shown.lstrip()  # every id is printed after a space
    settings = _settings(args, options)
    if args.stream:
        # The first piece is generated before anything is printed, so that errors come first.
        pieces = model.stream(prompt, **settings)
        print(shown + next(pieces, ""), end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        return
    samples = model.generate(prompt, num_samples=args.num_samples, **settings)
    if args.json:
        fields = [vars(sample) for sample in samples]
        given = {} if isinstance(prompt, str) else {"prompt_tokens": prompt}
        print(json.dumps({"prompt": shown, **given, "samples": fields}), flush=True)
        return
    for i, sample in enumerate(samples):
        if args.num_samples > 1:
            print(f"--- sample {i + 1} of {args.num_samples} ({sample.finish_reason})")
        print(shown + sample.text, flush=True)
