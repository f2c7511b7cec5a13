"""Text from a model: prefill, then a jitted loop over blocks of tokens with a static cache.

Shapes are bucketed to powers of two, so that a session of many prompts compiles a few programs, not
one each.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.inference.sampling import SamplingOptions, sample
from gpt2_jax.model.cache import KVCache, init_cache
from gpt2_jax.model.gpt2 import GPT2, unstack
from gpt2_jax.tokenizers.tokenizer import StreamDecoder, Tokenizer

_SMALLEST_BUCKET = 16
_BLOCK = 16  # tokens between two looks from the host: fewer stream more smoothly, more run faster


@dataclasses.dataclass
class Sample:
    """One generated text.

    Attributes:
      text: what follows the prompt, without the stop string that ended it.
      tokens: the generated ids, those of the end of text or the stop string included.
      finish_reason: "stop" (end of text or a stop string) or "length".
    """

    text: str
    tokens: list[int]
    finish_reason: str


def decode_params(params: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Scanned training parameters made ready to decode: unrolled, in the compute dtype."""
    return compute_params(unstack(params, config.num_layers), config)


def compute_params(params: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Parameters in the compute dtype, cast once.

    Norms stay as they are, since they compute in float32 whatever the compute dtype.
    """

    def ready(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        is_norm = any(str(entry.key).startswith("ln_") for entry in path)
        return leaf if is_norm else leaf.astype(config.dtype)

    return jax.tree_util.tree_map_with_path(ready, params)


def generate_tokens(
    params: Mapping[str, Any],
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    options: SamplingOptions = SamplingOptions(),
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Yields int32 [B, n] blocks of new tokens, max_new_tokens columns in all unless left early.

    Args:
      params: of `decode_params`.
      prompts: token ids of each row, at least one each; rows may differ in length.
      seed: the same seed, options and prompts give the same tokens.

    Raises:
      UserError: if the longest prompt and max_new_tokens do not fit the context together.
    """
    longest = max(map(len, prompts))
    check_length(config, longest, max_new_tokens)
    config = dataclasses.replace(config, attention="reference", dropout=0.0)
    padded = np.zeros((len(prompts), bucket(longest, config.context_length)), np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths = jnp.asarray([len(prompt) for prompt in prompts], jnp.int32)
    num_slots = bucket(max(longest + max_new_tokens, padded.shape[1]), config.context_length)

    key = jax.random.key(seed)
    cache, logits = _prefill(params, config, jnp.asarray(padded), lengths, num_slots)
    for start in range(0, max_new_tokens, _BLOCK):
        count = min(_BLOCK, max_new_tokens - start)
        cache, logits, block = _decode_block(
            params, config, options, cache, logits, key, jnp.int32(start), jnp.int32(count)
        )
        yield np.asarray(block)[:, :count]


def generate(
    params: Mapping[str, Any],
    config: ModelConfig,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int | None = None,
    options: SamplingOptions = SamplingOptions(),
    stop: Sequence[str] = (),
    seed: int = 0,
) -> Iterator[list[tuple[str, Sample | None]]]:
    """Continues each prompt; yields, block by block, a row's (new text, Sample or None).

    Text that may turn out to begin a stop string, or is half a character, is held back until it is
    certain; the pieces of a row joined are exactly its Sample's text. A finished row goes on to
    yield ("", its Sample).

    Args:
      params: of `decode_params`.
      prompts: texts, or token ids of texts; an empty text starts from the end-of-text token, or a
        newline where the tokenizer has none.
      max_new_tokens: default: as many as the context has room for.
      stop: texts that end a sample; they are not part of it.

    Raises:
      UserError: if a prompt does not fit the context.
    """
    if not isinstance(options, SamplingOptions):
        raise UserError(f"options must be SamplingOptions(...), not {type(options).__name__}")
    encoded = [
        encode_prompt(tokenizer, prompt) if isinstance(prompt, str) else prompt
        for prompt in prompts
    ]
    longest = max(map(len, encoded))
    if max_new_tokens is None:
        check_length(config, longest, 1)
        max_new_tokens = config.context_length - longest
    rows = [_Row(tokenizer, stop) for _ in prompts]
    for block in generate_tokens(params, config, encoded, max_new_tokens, options, seed):
        yield [(row.push(tokens), row.sample) for row, tokens in zip(rows, block, strict=True)]
        if all(row.sample for row in rows):
            return
    yield [(row.finish(), row.sample) for row in rows]


def generate_text(
    params: Mapping[str, Any],
    config: ModelConfig,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    **options: Any,
) -> list[Sample]:
    """The Samples of `generate`, one a prompt, once all are finished."""
    final: list[Sample] = []
    for pieces in generate(params, config, tokenizer, prompts, **options):
        final = [sample for _, sample in pieces if sample]
    return final


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Token ids of a prompt; an empty one becomes end of text, or a newline where there is none."""
    if prompt:
        return tokenizer.encode(prompt)
    return tokenizer.encode("\n") if tokenizer.eot is None else [tokenizer.eot]


def check_length(config: ModelConfig, prompt_tokens: int, max_new_tokens: int) -> None:
    """Refuses what the context has no room for.

    Raises:
      UserError: with the counts.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if prompt_tokens + max_new_tokens > config.context_length:
        raise UserError(
            f"prompt of {prompt_tokens} tokens + max_new_tokens={max_new_tokens} exceed "
            f"the model's context of {config.context_length}; shorten the prompt or ask for less"
        )


def bucket(length: int, limit: int) -> int:
    """The power of two, at least 16, that `length` is padded to; at most `limit`."""
    size = _SMALLEST_BUCKET
    while size < length:
        size *= 2
    return min(size, limit)


class _Row:
    """One sample as it grows: tokens to certain text, and when to stop."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._eot, self._stop = tokenizer.eot, [text for text in stop if text]
        self._decoder = StreamDecoder(tokenizer)
        self._tokens: list[int] = []
        self._text, self._emitted = "", 0
        self.sample: Sample | None = None

    def push(self, tokens: Sequence[int]) -> str:
        """Takes the next tokens; returns the text that became certain."""
        for token in map(int, tokens):
            if self.sample:
                return ""
            self._tokens.append(token)
            if token == self._eot:
                return self._end("stop", len(self._text))
            before = len(self._text)
            self._text += self._decoder.push(token)
            # A stop string that ends here may have begun up to its length earlier.
            found = [self._text.find(s, max(0, before - len(s) + 1)) for s in self._stop]
            if ends := [at for at in found if at >= 0]:
                return self._end("stop", min(ends))
        return self._emit(len(self._text) - self._held_back())

    def finish(self) -> str:
        """Ends the row for want of room; returns the text still held back."""
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
        """Characters at the end that begin some stop string."""
        starts = [stop[:n] for stop in self._stop for n in range(1, len(stop))]
        return max((len(start) for start in starts if self._text.endswith(start)), default=0)


@functools.partial(jax.jit, static_argnames=("config", "num_slots"))
def _prefill(
    params: Any, config: ModelConfig, tokens_BxP: jax.Array, lengths_B: jax.Array, num_slots: int
) -> tuple[KVCache, jax.Array]:
    """(cache holding the prompts, logits [B, V] after each prompt's last token)."""
    model = GPT2(config, scanned=False)
    cache: Any = init_cache(config, tokens_BxP.shape[0], num_slots)
    hidden_BxPxD, cache = model.apply({"params": params}, tokens_BxP, cache)
    last_BxD = jnp.take_along_axis(hidden_BxPxD, (lengths_B - 1)[:, None, None], axis=1)
    logits: Any = model.apply({"params": params}, last_BxD, method=GPT2.unembed)
    # Slots past a row's length hold what its padding left there: masked now, overwritten later.
    return cache._replace(lengths=lengths_B), logits[:, 0]


@functools.partial(jax.jit, static_argnames=("config", "options"), donate_argnames=("cache",))
def _decode_block(
    params: Any,
    config: ModelConfig,
    options: SamplingOptions,
    cache: KVCache,
    logits_BxV: jax.Array,
    key: jax.Array,
    start: jax.Array,
    count: jax.Array,
) -> tuple[KVCache, jax.Array, jax.Array]:
    """Draws `count` tokens a row: (cache, logits after them, tokens [B, _BLOCK] zero-padded)."""
    model = GPT2(config, scanned=False)

    def one(i: jax.Array, carry: Any) -> Any:
        cache, logits_BxV, block = carry
        token_B = sample(logits_BxV, jax.random.fold_in(key, start + i), options)
        block = jax.lax.dynamic_update_slice(block, token_B[:, None], (0, i))
        logits_Bx1xV, cache = model.apply(
            {"params": params}, token_B[:, None], cache, method=GPT2.logits
        )
        return cache, logits_Bx1xV[:, 0], block

    block = jnp.zeros((logits_BxV.shape[0], _BLOCK), jnp.int32)
    return jax.lax.fori_loop(0, count, one, (cache, logits_BxV, block))
