"""Generates text: prefill, then a jitted loop over blocks of tokens with a static cache.

Shapes are padded to powers of two, so that many prompts share a few compiled programs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import ModelConfig, arguments
from gpt2_jax.errors import UserError
from gpt2_jax.inference.sampling import SamplingOptions, sample
from gpt2_jax.model import lengths
from gpt2_jax.model.cache import KVCache, init_cache
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.params import cast, unstack
from gpt2_jax.parallel.distributed import on_every_host
from gpt2_jax.tokenizers.streaming import StreamDecoder
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_SMALLEST_BUCKET = 16
_BLOCK = 16  # tokens per call from the host: fewer stream more smoothly, more run faster


@dataclasses.dataclass
class Sample:
    """Holds one generated text.

    Attributes:
      text: the text after the prompt, without the stop string that ended it.
      tokens: the generated ids, including those of an end of text or the stop string.
      finish_reason: "stop" (end of text or a stop string) or "length".
    """

    text: str
    tokens: list[int]
    finish_reason: str


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
) -> Iterator[np.ndarray]:
    """Yields int32 [B, n] blocks of new tokens, max_new_tokens columns in total.

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
    longest = max(map(len, prompts))
    check_length(model.config, longest, max_new_tokens)
    limit = model.config.longest
    padded = np.zeros((len(prompts), bucket(longest, limit)), np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths = jnp.asarray([len(prompt) for prompt in prompts], jnp.int32)
    num_slots = bucket(max(longest + max_new_tokens, padded.shape[1]), limit)

    key = jax.random.key(seed)
    cache, logits = _prefill(model, params, jnp.asarray(padded), lengths, num_slots)
    for start in range(0, max_new_tokens, _BLOCK):
        count = min(_BLOCK, max_new_tokens - start)
        cache, logits, block = _decode_block(
            model, params, options, cache, logits, key, jnp.int32(start), jnp.int32(count)
        )
        yield on_every_host(block)[:, :count]


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

    Raises:
      UserError: if a prompt is too long, or an option has a wrong type or value.
    """
    if not isinstance(options, SamplingOptions):
        raise UserError(f"options must be SamplingOptions(...), not {type(options).__name__}")
    stop = arguments.texts("stop", stop, example="['\\n\\n']")
    seed = arguments.integer("seed", seed, low=0, high=arguments.LARGEST_SEED)
    encoded = [
        encode_prompt(tokenizer, prompt) if isinstance(prompt, str) else prompt
        for prompt in prompts
    ]
    longest = max(map(len, encoded))
    if max_new_tokens is not None:
        max_new_tokens = arguments.integer("max_new_tokens", max_new_tokens, low=1)
        check_length(model.config, longest, max_new_tokens)
    else:
        max_new_tokens = model.config.context_length - longest
        if max_new_tokens < 1:
            more = "" if model.config.longest <= longest else ", or set max_new_tokens to exceed it"
            raise UserError(
                f"a prompt of {longest} tokens leaves no room in the model's context of "
                f"{model.config.context_length}: shorten it{more}"
            )
    rows = [_Row(tokenizer, stop) for _ in prompts]
    blocks = generate_tokens(model, params, encoded, max_new_tokens, options, seed)
    return _pieces(rows, blocks)


def _pieces(
    rows: list[_Row], blocks: Iterator[np.ndarray]
) -> Iterator[list[tuple[str, Sample | None]]]:
    for block in blocks:
        yield [(row.push(tokens), row.sample) for row, tokens in zip(rows, block, strict=True)]
        if all(row.sample for row in rows):
            return
    yield [(row.finish(), row.sample) for row in rows]


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


def check_length(config: ModelConfig, prompt_tokens: int, max_new_tokens: int) -> None:
    """Checks that the model can compute a prompt and its continuation.

    Raises:
      UserError: with the counts, if it does not.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if prompt_tokens + max_new_tokens > config.longest:
        raise UserError(
            f"prompt of {prompt_tokens} tokens + max_new_tokens={max_new_tokens} exceed "
            f"{lengths.limit(config)}; shorten the prompt or lower max_new_tokens"
        )


def bucket(length: int, limit: int) -> int:
    """Returns the padded size for `length`: a power of two from 16 on, but at most `limit`."""
    size = _SMALLEST_BUCKET
    while size < length:
        size *= 2
    return min(size, limit)


class _Row:
    """Turns the tokens of one sample into certain text, and decides when it ends."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._ends, self._stop = tokenizer.ends, [text for text in stop if text]
        self._decoder = StreamDecoder(tokenizer)
        self._tokens: list[int] = []
        self._text, self._emitted = "", 0
        self.sample: Sample | None = None

    def push(self, tokens: Sequence[int]) -> str:
        """Takes the next tokens and returns the text that became certain."""
        for token in map(int, tokens):
            if self.sample:
                return ""
            self._tokens.append(token)
            if token in self._ends:
                return self._end("stop", len(self._text))
            before = len(self._text)
            self._text += self._decoder.push(token)
            # A stop string that ends here may have begun up to its length earlier.
            starts = [self._text.find(s, max(0, before - len(s) + 1)) for s in self._stop]
            if matches := [start for start in starts if start >= 0]:
                return self._end("stop", min(matches))
        return self._emit(len(self._text) - self._held_back())

    def finish(self) -> str:
        """Ends the row because there is no more room; returns the text still held back."""
        if self.sample:
            return ""
        self._text += self._decoder.finish()
        return self._end("length", len(self._text))

    def _end(self, reason: str, length: int) -> str:
        self.sample = Sample(self._text[:length], self._tokens, reason)
        return self._emit(length)

    def _emit(self, end: int) -> str:
        piece, self._emitted = self._text[self._emitted : end], max(end, self._emitted)
        return piece

    def _held_back(self) -> int:
        """Returns the number of characters at the end that may begin a stop string."""
        starts = [stop[:n] for stop in self._stop for n in range(1, len(stop))]
        return max((len(start) for start in starts if self._text.endswith(start)), default=0)


@functools.partial(jax.jit, static_argnames=("model", "num_slots"))
def _prefill(
    model: GPT2, params: Any, tokens_BxP: jax.Array, lengths_B: jax.Array, num_slots: int
) -> tuple[KVCache, jax.Array]:
    """Returns (the cache with the prompts, logits [B, V] after each prompt's last token)."""
    cache: Any = init_cache(model.config, model.compute.dtype, tokens_BxP.shape[0], num_slots)
    hidden_BxPxD, cache = model.apply({"params": params}, tokens_BxP, cache)
    last_BxD = jnp.take_along_axis(hidden_BxPxD, (lengths_B - 1)[:, None, None], axis=1)
    logits: Any = model.apply({"params": params}, last_BxD, method=GPT2.unembed)
    # Slots past a row's length hold its padding, which is masked now and overwritten later.
    return cache._replace(lengths=lengths_B), logits[:, 0]


@functools.partial(jax.jit, static_argnames=("model", "options"), donate_argnames=("cache",))
def _decode_block(
    model: GPT2,
    params: Any,
    options: SamplingOptions,
    cache: KVCache,
    logits_BxV: jax.Array,
    key: jax.Array,
    start: jax.Array,
    count: jax.Array,
) -> tuple[KVCache, jax.Array, jax.Array]:
    """Draws `count` tokens per row: (cache, logits after them, tokens [B, _BLOCK] zero-padded)."""

    def draw(i: jax.Array, carry: Any) -> Any:
        cache, logits_BxV, block = carry
        token_B = sample(logits_BxV, jax.random.fold_in(key, start + i), options)
        block = jax.lax.dynamic_update_slice_in_dim(block, token_B[:, None], i, axis=1)
        logits_Bx1xV, cache = model.apply(
            {"params": params}, token_B[:, None], cache, method=GPT2.logits
        )
        return cache, logits_Bx1xV[:, 0], block

    block = jnp.zeros((logits_BxV.shape[0], _BLOCK), jnp.int32)
    return jax.lax.fori_loop(0, count, draw, (cache, logits_BxV, block))
