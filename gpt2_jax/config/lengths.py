"""Parses the lengths of windows that a run is also validated on (`eval.context_lengths`)."""

from __future__ import annotations

from gpt2_jax.config.model import ModelConfig
from gpt2_jax.errors import UserError, short_repr


def parse_lengths(text: str) -> list[int]:
    """Returns the numbers of tokens that the knob lists, such as `256,512`.

    Raises:
      UserError: if it is not such a list, or a number occurs twice.
    """
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    # Python refuses to convert a word of thousands of digits.
    if not all(
        word.isascii() and word.isdigit() and len(word) < 12 and int(word) for word in words
    ):
        raise UserError(
            "eval.context_lengths must be numbers of tokens such as 256,512, not "
            f"{short_repr(text)}"
        )
    lengths = [int(word) for word in words]
    if len(set(lengths)) < len(lengths):
        raise UserError(f"eval.context_lengths={text} names a length twice")
    return lengths


def check_lengths(text: str, model: ModelConfig) -> None:
    """Checks that the model can compute windows of these lengths.

    Raises:
      UserError: naming the first length that it cannot.
    """
    too_long = [length for length in parse_lengths(text) if length > model.longest]
    if not too_long:
        return
    reason = f"more than {model.longest} tokens cannot be computed at once"
    if model.longest == model.context_length:
        reason = (
            f"with model.position={model.position}, a model has no positions beyond its "
            f"model.context_length={model.context_length}"
        )
    raise UserError(f"eval.context_lengths={text}: {too_long[0]} is too long, because {reason}")
