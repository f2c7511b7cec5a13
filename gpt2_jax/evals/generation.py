"""What lm-eval asks of generation: its `generation_kwargs` as what our sampler takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.cache import bytes_per_slot

MAX_GEN_TOKS = 256
"""New tokens where a task does not say: the default of lm-eval's `hf` backend."""

_SAMPLING = ("temperature", "top_k", "top_p")
# Settings of transformers' `generate` that tasks name, and the values at which they do nothing.
_NEUTRAL = {"num_beams": 1, "repetition_penalty": 1}
# For `batch_size=auto`.
_CACHE_BYTES = 2 << 30
_MOST_ROWS = 64


class Generation(NamedTuple):
    """What is wanted of a text; requests that want the same are generated together.

    Attributes:
      stop: texts that end it, none of them empty, in the order in which they cut.
      max_new_tokens: that it ends after.
      options: how tokens are chosen.
    """

    stop: tuple[str, ...]
    max_new_tokens: int
    options: SamplingOptions

    def cut(self, text: str) -> str:
        """The text up to its stop strings, one after the other, as lm-eval does.

        Where they overlap, their order decides: a short one may leave nothing of a longer to find.
        """
        for stop in self.stop:
            text = text.partition(stop)[0]
        return text


def parse(values: Mapping[str, Any], context_length: int, end: str) -> Generation:
    """Reads a request's `generation_kwargs`.

    Args:
      end: the text that stands for the end of a text, which stops too; empty where there is none.

    Raises:
      UserError: for a setting that generation does not have, a wrong value, or a `max_gen_toks`
        that leaves no room for a prompt.
    """
    from lm_eval.models.utils import normalize_gen_kwargs  # pyright: ignore[reportMissingImports]

    # It settles the names that go by more than one, and whether a temperature counts.
    wanted: dict[str, Any] = dict(normalize_gen_kwargs(dict(values), MAX_GEN_TOKS))
    stop = tuple(stop for stop in (*wanted.pop("until"), end) if stop)
    count = wanted.pop("max_gen_toks")
    if not 1 <= count < context_length:
        raise UserError(
            f"max_gen_toks={count} must be at least 1 and leave room for a prompt in the model's "
            f"context of {context_length}: set it, --gen_kwargs max_gen_toks=N"
        )
    sampling: dict[str, Any] = {key: wanted.pop(key) for key in _SAMPLING if key in wanted}
    if not wanted.pop("do_sample"):
        sampling = {"temperature": 0.0}
    if refused := [key for key, value in wanted.items() if _NEUTRAL.get(key) != value]:
        raise UserError(
            f"generation has no setting {', '.join(refused)}; it has: until, max_gen_toks, "
            f"do_sample, {', '.join(_SAMPLING)}"
        )
    return Generation(stop, count, SamplingOptions(**sampling))


def rows(batch_size: int | str, most: int | None, config: ModelConfig) -> int:
    """Prompts that are generated together, from what `--batch_size` says.

    Args:
      batch_size: how many, or `auto`: as many as have 2 GiB of caches together, up to `most`.
      most: default: 64.

    Raises:
      UserError: for anything else.
    """
    if re.fullmatch(r"[1-9]\d*", str(batch_size)):
        return int(batch_size)
    if not re.fullmatch(r"auto(:\d+)?", str(batch_size)):
        raise UserError(f"batch_size must be a whole number from 1 on, or auto, not {batch_size!r}")
    fitting = _CACHE_BYTES // (bytes_per_slot(config) * config.context_length)
    return max(1, min(fitting, int(most or _MOST_ROWS)))
