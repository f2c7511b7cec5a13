"""Declares the flags that say how tokens are drawn, and turns them into `SamplingOptions`."""

from __future__ import annotations

import argparse
import math
import re
from typing import TYPE_CHECKING

from gpt2_jax.config.arguments import SAMPLING_RANGES
from gpt2_jax.errors import UserError, short_repr

if TYPE_CHECKING:
    from gpt2_jax.inference.sampling import SamplingOptions

# (field of SamplingOptions, type, default, metavar, help)
_FLAGS = (
    ("temperature", float, 1.0, "T", "divide logits by T; 0 is greedy decoding"),
    ("top_k", int, 0, "K", "sample from the K most probable tokens; 0 and -1: from all"),
    ("top_p", float, 1.0, "P", "sample from the fewest tokens whose probability reaches P"),
    (
        "min_p",
        float,
        0.0,
        "P",
        "sample from tokens at least P times as probable as the most probable one",
    ),
    (
        "presence_penalty",
        float,
        0.0,
        "X",
        "subtract X from the logits of tokens generated before",
    ),
    (
        "frequency_penalty",
        float,
        0.0,
        "X",
        "subtract X for each time that the token was generated",
    ),
    (
        "repetition_penalty",
        float,
        1.0,
        "X",
        "divide positive logits of tokens in the text by X, multiply negative ones",
    ),
    (
        "no_repeat_ngram_size",
        int,
        0,
        "N",
        "let no sequence of N tokens occur twice; 0: let all",
    ),
)


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Declares the flags."""
    for name, kind, default, metavar, text in _FLAGS:
        group.add_argument(
            f"--{name}",
            type=kind,
            default=default,
            metavar=metavar,
            help=f"{text}; {_range(name)}; default: {default:g}",
        )
    group.add_argument(
        "--logit_bias",
        action="append",
        default=[],
        metavar="ID=BIAS",
        help="add BIAS, from -100 to 100, to the logit of a token id; may be repeated",
    )
    group.add_argument(
        "--ignore_eos", action="store_true", help="go on behind the end of text, up to the length"
    )


def _range(name: str) -> str:
    low, high = SAMPLING_RANGES[name]
    return f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"


def options(args: argparse.Namespace) -> SamplingOptions:
    """Returns what the flags say.

    Raises:
      UserError: for a value out of range.
    """
    from gpt2_jax.inference.sampling import SamplingOptions

    biases: dict[int, float] = {}
    for text in args.logit_bias:
        token, bias = _bias(text)
        if token in biases:
            raise UserError(f"--logit_bias names token {token} twice")
        biases[token] = bias
    values = {name: getattr(args, name) for name, *_ in _FLAGS}
    try:
        return SamplingOptions(**values, logit_bias=biases, ignore_eos=args.ignore_eos)
    except UserError as error:  # which begins with the name of the option
        raise UserError(f"--{error}") from error


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        if re.fullmatch(r"[0-9]{1,19}", token):
            return int(token), float(bias)
    except ValueError:
        pass
    raise UserError(f"--logit_bias must be ID=BIAS such as 256=-100, not {short_repr(text)}")
