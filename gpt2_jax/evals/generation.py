"""Translates lm-eval's `generation_kwargs` into the options of our sampler."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gpt2_jax.config import Config
from gpt2_jax.errors import UserError
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.cache import bytes_per_slot

MAX_GEN_TOKS = 256
"""The number of new tokens if a task does not set it: the default of lm-eval's `hf` backend."""

_SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingOptions))
# Settings without effect if the most probable token is taken.
_DRAWING = {"top_k", "top_p", "min_p"}
# Settings of transformers' `generate` that tasks use, with the value that changes nothing.
_NEUTRAL = {"num_beams": 1}
# Limits of `batch_size=auto`.
_CACHE_BYTES = 2 << 30
_MAX_ROWS = 64


class Generation(NamedTuple):
    """Holds the settings of a generated text; requests with equal settings share batches.

    Attributes:
      stop: nonempty strings that end the text, in the order in which they are applied.
      max_new_tokens: the most tokens to generate.
      options: how tokens are sampled.
    """

    stop: tuple[str, ...]
    max_new_tokens: int
    options: SamplingOptions

    def cut(self, text: str) -> str:
        """Returns the text up to its stop strings, applied one after the other as lm-eval does.

        If stop strings overlap, their order matters: a short one may remove part of a longer one.
        """
        for stop in self.stop:
            text = text.partition(stop)[0]
        return text


def parse(values: Mapping[str, Any], context_length: int, end: str) -> Generation:
    """Parses a request's `generation_kwargs`.

    Args:
      values: the settings, by lm-eval's names.
      context_length: of the model.
      end: the string of the end-of-text token, which also stops generation; empty if there is none.

    Raises:
      UserError: if a setting is unknown or out of range, or `max_gen_toks` leaves no room for a
        prompt.
    """
    from lm_eval.models.utils import normalize_gen_kwargs  # pyright: ignore[reportMissingImports]

    # It resolves aliases, and whether the temperature is used at all.
    settings: dict[str, Any] = dict(normalize_gen_kwargs(dict(values), MAX_GEN_TOKS))
    stop = tuple(stop for stop in (*settings.pop("until"), end) if stop)
    count = settings.pop("max_gen_toks")
    if not 1 <= count < context_length:
        raise UserError(
            f"max_gen_toks={count} must be at least 1 and leave room for a prompt in the model's "
            f"context of {context_length}: set it with --gen_kwargs max_gen_toks=N"
        )
    sampling: dict[str, Any] = {key: settings.pop(key) for key in _SAMPLING if key in settings}
    if not settings.pop("do_sample"):
        sampling = {key: sampling[key] for key in sampling.keys() - _DRAWING} | {"temperature": 0.0}
    if unsupported := [key for key, value in settings.items() if _NEUTRAL.get(key) != value]:
        raise UserError(
            f"generation has no setting {', '.join(unsupported)}; it has: until, max_gen_toks, "
            f"do_sample, {', '.join(_SAMPLING)}"
        )
    return Generation(stop, count, SamplingOptions(**sampling))


def batch_rows(batch_size: int | str, limit: int | None, config: Config) -> int:
    """Returns how many prompts to generate together.

    Args:
      batch_size: lm-eval's `--batch_size`: an integer, or `auto` for as many prompts as fit 2 GiB
        of caches, up to `limit`.
      limit: 64 by default.
      config: of the model.

    Raises:
      UserError: if batch_size is neither.
    """
    if re.fullmatch(r"[1-9]\d*", str(batch_size)):
        return int(batch_size)
    if not re.fullmatch(r"auto(:\d+)?", str(batch_size)):
        raise UserError(f"batch_size must be an integer of at least 1, or auto, not {batch_size!r}")
    fitting = _CACHE_BYTES // (
        bytes_per_slot(config.model, config.compute.dtype) * config.model.context_length
    )
    return max(1, min(fitting, int(limit or _MAX_ROWS)))
