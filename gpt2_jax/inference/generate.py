"""Generates text for a list of prompts, all at the same time, on an engine of as many slots."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2_jax.config import ModelConfig, arguments
from gpt2_jax.errors import UserError, short_repr
from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.requests import Choice, Request
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.inference.text import Sample
from gpt2_jax.model import lengths
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.params import cast, unstack
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer

CONTEXT_OVERFLOW = ("error", "slide")
"""What can happen to a text that grows beyond what the model can compute."""
_SMALLEST_BUCKET = 16
MOST_SLOTS = 32
"""How many texts are generated at a time at most, by default: more wait for a slot."""


def decode_params(model: GPT2, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns scanned parameters in the form for decoding: unrolled, in the compute dtype."""
    return cast(unstack(params, model.config.num_layers), model.compute.dtype)


def generate_tokens(
    model: GPT2,
    params: Mapping[str, Any],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    options: SamplingOptions = SamplingOptions(),
    seed: int = 0,
) -> np.ndarray:
    """Returns new tokens for each prompt, int32 [B, max_new_tokens]; no token ends a row.

    Args:
      model: a module of `build_decoder`.
      params: parameters of `decode_params`.
      prompts: token ids of each row, at least one per row; rows may differ in length.
      max_new_tokens: tokens to generate for each row.
      options: how each token is drawn.
      seed: the same seed, options and prompts give the same tokens.

    Raises:
      UserError: if the longest prompt and max_new_tokens together exceed what the model can
        compute, which is the context only if positions end there.
    """
    tokenizer = IdsTokenizer(model.config.vocab_size, "tokens are asked for")
    wanted = Request((), max_new_tokens, options, seed=seed)
    engine, choices = _submitted(model, params, tokenizer, prompts, wanted)
    for _ in _stepping(engine, choices):
        pass
    return np.array([choice.tokens for choice in choices], np.int32)


def generate(
    model: GPT2,
    params: Mapping[str, Any],
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int | None = None,
    options: SamplingOptions = SamplingOptions(),
    stop: Sequence[str] = (),
    seed: int = 0,
    num_slots: int | None = None,
    context_overflow: str = "error",
) -> Iterator[list[tuple[str, Sample | None]]]:
    """Returns an iterator over each prompt's (new text, Sample or None), block by block.

    What is passed is checked by the call itself, before the first block is requested.

    Text that may be the beginning of a stop string, or is an incomplete character, is held back
    until it is certain; the joined pieces of a row are exactly its Sample's text. A finished row
    continues to yield ("", its Sample).

    Args:
      model: a module of `build_decoder`.
      params: parameters of `decode_params`.
      tokenizer: the tokenizer of the model.
      prompts: strings or token ids; an empty string starts from the tokenizer's `bos`, which is
        mostly the end of text, or from a newline if the tokenizer has none.
      max_new_tokens: by default, as many as the context has room for; unless positions end there,
        more are possible.
      options: how each token is drawn.
      stop: strings that end a sample and are not part of it.
      seed: the same seed gives the same samples; from 0 to 2^32 - 1.
      num_slots: how many texts are generated at a time; by default as many as prompts, up to
        `MOST_SLOTS`. Bits of a text depend on it and on the room of a slot, which follows from the
        longest text of the call, but not on what else is generated.
      context_overflow: what happens to a text for which the model has no more positions: "error"
        refuses the request, "slide" reads the last half of the text again and goes on behind it.

    Raises:
      UserError: if a prompt is too long, or an option has a wrong type or value.
    """
    if not isinstance(options, SamplingOptions):
        raise UserError(f"options must be SamplingOptions(...), not {type(options).__name__}")
    stop = arguments.texts("stop", stop, example="['\\n\\n']")
    seed = arguments.integer("seed", seed, low=0, high=arguments.LARGEST_SEED)
    if num_slots is not None:
        num_slots = arguments.integer("num_slots", num_slots, low=1, high=arguments.MOST_SAMPLES)
    slide = check_overflow(context_overflow)
    encoded = [
        encode_prompt(tokenizer, prompt) if isinstance(prompt, str) else prompt
        for prompt in prompts
    ]
    longest = max(map(len, encoded))
    new = new_tokens(model.config, longest, max_new_tokens)
    wanted = Request((), new, options, stop, seed, slide=slide)
    return _stepping(*_submitted(model, params, tokenizer, encoded, wanted, num_slots))


def _submitted(
    model: GPT2,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    wanted: Request,
    num_slots: int | None = None,
) -> tuple[Engine, list[Choice]]:
    """Returns an engine that was given the prompts, and their texts in order.

    Args:
      model, params, tokenizer, prompts, num_slots: see `generate`.
      wanted: what every prompt asks for.
    """
    longest, new = max(map(len, prompts)), wanted.max_new_tokens
    # A text that slides needs room for its prompt and one more token.
    check_length(model.config, longest, min(new, 1) if wanted.slide else new)
    engine = Engine(
        model,
        params,
        tokenizer,
        num_slots=num_slots or min(len(prompts), MOST_SLOTS),
        max_length=bucket(longest + new, model.config.longest),
        fill_first=True,
    )
    choices: list[Choice] = []
    while len(choices) < len(prompts):
        first, prompt = len(choices), prompts[len(choices)]
        count = 1  # equal prompts in a row are read once
        while first + count < len(prompts) and [*prompts[first + count]] == [*prompt]:
            count += 1
        choices += engine.submit(
            dataclasses.replace(wanted, prompt=prompt, num_choices=count, first_choice=first)
        )
    return engine, choices


def _stepping(
    engine: Engine, choices: Sequence[Choice]
) -> Iterator[list[tuple[str, Sample | None]]]:
    while not all(choice.finished for choice in choices):
        engine.step()
        pieces = [(choice.unread, choice.stream.sample) for choice in choices]
        for choice in choices:
            choice.unread = ""
        yield pieces


def generate_text(
    model: GPT2,
    params: Mapping[str, Any],
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    **options: Any,
) -> list[Sample]:
    """Returns the Samples of `generate`, one for each prompt, when all are finished."""
    final: list[Sample] = []
    for pieces in generate(model, params, tokenizer, prompts, **options):
        final = [sample for _, sample in pieces if sample]
    return final


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Returns the token ids of a prompt; of an empty one, `bos` or else a newline."""
    if prompt:
        return tokenizer.encode(prompt)
    return tokenizer.encode("\n") if tokenizer.bos is None else [tokenizer.bos]


def new_tokens(config: ModelConfig, prompt_tokens: int, max_new_tokens: int | None) -> int:
    """Returns how many tokens to generate: by default, as many as the context has room for.

    Raises:
      UserError: for a number below 1, or if there is no room.
    """
    if max_new_tokens is not None:
        return arguments.integer("max_new_tokens", max_new_tokens, low=1)
    room = config.context_length - prompt_tokens
    if room < 1:
        more = "" if config.longest <= prompt_tokens else ", or set max_new_tokens to exceed it"
        raise UserError(
            f"a prompt of {prompt_tokens} tokens leaves no room in the model's context of "
            f"{config.context_length}: shorten it{more}"
        )
    return room


def check_overflow(value: str) -> bool:
    """Returns whether `context_overflow` is "slide".

    Raises:
      UserError: if it is not "error" either.
    """
    if value not in CONTEXT_OVERFLOW:
        names = " or ".join(CONTEXT_OVERFLOW)
        raise UserError(f"context_overflow must be {names}, not {short_repr(value)}")
    return value == "slide"


def check_length(config: ModelConfig, prompt_tokens: int, max_new_tokens: int) -> None:
    """Checks that the model can compute a prompt and its continuation.

    Raises:
      UserError: with the counts, if it does not.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if prompt_tokens + max_new_tokens > config.longest:
        slides = prompt_tokens < config.longest  # it needs room for one more token
        way_out = "lower max_new_tokens, or let the text go on with --context_overflow slide"
        raise UserError(
            f"prompt of {prompt_tokens} tokens + max_new_tokens={max_new_tokens} exceed "
            f"{lengths.limit(config)}; shorten the prompt{f', {way_out}' if slides else ''}"
        )


def bucket(length: int, limit: int) -> int:
    """Returns the padded size for `length`: a power of two from 16 on, but at most `limit`."""
    size = _SMALLEST_BUCKET
    while size < length:
        size *= 2
    return min(size, limit)
