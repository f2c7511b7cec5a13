"""Generates text for a long list of prompts, and gives the results in order."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpt2_jax.config import arguments
from gpt2_jax.errors import UserError
from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.generate import bucket, check_length, check_overflow, new_tokens
from gpt2_jax.inference.requests import Choice, Request
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.inference.text import Sample
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.tokenizers.tokenizer import Tokenizer

SLOTS = 8
"""How many texts of a list are generated at a time, by default."""


def generate_many(
    model: GPT2,
    params: Mapping[str, Any],
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    num_samples: int = 1,
    max_new_tokens: int | None = None,
    options: SamplingOptions = SamplingOptions(),
    stop: Sequence[str] = (),
    seed: int = 0,
    num_slots: int | None = None,
    context_overflow: str = "error",
    start: int = 0,
) -> Iterator[list[Sample]]:
    """Returns an iterator over the samples of each prompt, in the order of the prompts.

    All prompts are checked by the call itself. Sample i of prompt p is a function of the seed, p, i
    and the options, so that a list may be generated in parts.

    Args:
      model, params, tokenizer, options, stop, seed, context_overflow: see `generate`.
      prompts: token ids.
      num_samples: how many texts to generate for each.
      max_new_tokens: by default, as many as the context has room for behind each prompt.
      num_slots: how many texts are generated at a time; by default `SLOTS`. Bits of a text
        depend on it and on the room of a slot, which follows from the longest text of the list.
      start: prompts before this one are skipped.

    Raises:
      UserError: with the number of the prompt, from 1 on, if one does not fit.
    """
    slide = check_overflow(context_overflow)
    slots = arguments.integer("num_slots", SLOTS if num_slots is None else num_slots, low=1)
    requests: list[Request] = []
    longest = 0
    for number, prompt in enumerate(prompts):
        try:
            new = new_tokens(model.config, len(prompt), max_new_tokens)
            check_length(model.config, len(prompt), min(new, 1) if slide else new)
            first = number * num_samples
            wanted = Request(prompt, new, options, stop, seed, num_samples, first, slide=slide)
            wanted.check(model.config.vocab_size, model.config.longest, tokenizer.ends)
        except UserError as error:
            raise UserError(f"prompt {number + 1}: {error}") from error
        requests.append(wanted)
        longest = max(longest, len(prompt) + new)
    # The size does not depend on where the list is begun, nor do bits then.
    size = bucket(longest, model.config.longest)
    engine = Engine(model, params, tokenizer, num_slots=slots, max_length=size, fill_first=True)
    return _in_order(engine, requests[start:])


def _in_order(engine: Engine, requests: Sequence[Request]) -> Iterator[list[Sample]]:
    growing: collections.deque[list[Choice]] = collections.deque()
    for request in requests:
        growing.append(engine.submit(request))
    while growing:
        while growing and all(choice.finished for choice in growing[0]):
            samples = [choice.stream.sample for choice in growing.popleft()]
            yield [sample for sample in samples if sample]
        if growing:
            engine.step()
