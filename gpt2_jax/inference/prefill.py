"""Reads the tokens of one text into a cache of one row, in chunks of a few fixed sizes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.model.cache import KVCache, init_cache
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.layout import constrain
from gpt2_jax.parallel.distributed import on_every_host

CHUNKS = (16, 32, 64, 128)
"""Sizes of chunks: the last one of a text is padded to one of them, all others are the largest."""
MOST_LOGPROBS = 20
"""How many of the most probable tokens are reported with their log-probabilities, at most."""


class Drawn(NamedTuple):
    """Holds tokens and, if they are asked for, the model's own log-probabilities.

    Attributes:
      tokens: int32, [B] or [B, n]; `NONE` where a slot drew none.
      logprobs: float32 of the same shape, before penalties, biases and temperature; None unless
        asked for.
      top_ids, top_logprobs: the most probable tokens, with a further axis of `MOST_LOGPROBS`.
    """

    tokens: Any
    logprobs: Any = None
    top_ids: Any = None
    top_logprobs: Any = None

    def on_host(self) -> Drawn:
        """Returns the arrays as NumPy's, as soon as they are computed."""
        return Drawn(*(None if array is None else on_every_host(array) for array in self))

    def row(self, i: int) -> Drawn:
        """Returns what belongs to one row."""
        return Drawn(*(None if array is None else array[i] for array in self))


@functools.partial(jax.jit, static_argnames=("model", "num_rows", "room"))
def empty_cache(model: GPT2, num_rows: int, room: int) -> KVCache:
    """Returns a cache of so many rows (B), each with room for so many tokens (S).

    That may be more than the context, for padding.
    """
    padded = dataclasses.replace(model.config, context_length=room)
    return sharded(init_cache(padded, model.compute.dtype, num_rows, room))


@functools.partial(jax.jit, static_argnames=("model", "logprobs"), donate_argnames="staged")
def prefill_chunk(
    model: GPT2,
    params: Any,
    staged: KVCache,
    tokens_1xC: jax.Array,
    targets_1xC: jax.Array,
    start: jax.Array,
    *,
    logprobs: bool = False,
) -> tuple[KVCache, Drawn | None]:
    """Reads the next chunk of a text: returns (its cache, log-probabilities [1, C] or None).

    Args:
      model: a module of `build_decoder`.
      params: parameters of `generate.decode_params`.
      staged: a cache of one row with the chunks before.
      tokens_1xC: the chunk, padded at its end.
      targets_1xC: the token behind each of them.
      start: tokens before it.
      logprobs: whether to return the log-probabilities of the targets.
    """
    filled: Any
    hidden, filled = model.apply(
        {"params": params}, tokens_1xC, staged._replace(lengths=start[None])
    )
    found = None
    if logprobs:
        logits: Any = model.apply({"params": params}, hidden, method=GPT2.unembed)
        found = with_logprobs(logits[0], targets_1xC[0])
        found = replicated(jax.tree.map(lambda leaf: leaf[None], found))
    return sharded(filled), found


def with_logprobs(logits_NxV: jax.Array, tokens_N: jax.Array) -> Drawn:
    """Returns the tokens with their log-probabilities and those of the most probable tokens."""
    logprobs_NxV = jax.nn.log_softmax(logits_NxV)
    chosen_N = jnp.take_along_axis(logprobs_NxV, tokens_N[:, None], axis=-1)[:, 0]
    top_NxM, ids_NxM = jax.lax.top_k(logprobs_NxV, min(MOST_LOGPROBS, logits_NxV.shape[-1]))
    return Drawn(tokens_N, chosen_N, ids_NxM, top_NxM)


def sharded(cache: KVCache) -> KVCache:
    """Returns a cache whose heads are divided as those of the model are; without a mesh, itself."""
    heads = (None, "act_heads", None, None)
    layers: Any = jax.tree.map(lambda x_BxHxSxK: constrain(x_BxHxSxK, heads), cache.layers)
    return KVCache(layers, replicated(cache.lengths))


def replicated(tree: Any) -> Any:
    """Returns arrays that are whole on every device of the mesh in force, if there is one."""
    return jax.tree.map(lambda leaf: constrain(leaf, (None,) * leaf.ndim), tree)


class Chunks:
    """Hands out the chunks of one text, without its last token.

    Attributes:
      done: how many tokens were handed out.
    """

    def __init__(self, tokens: list[int], room: int) -> None:
        """Starts before the first chunk.

        Args:
          tokens: of the text.
          room: tokens that its cache has room for.
        """
        self._tokens, self._room, self.done = tokens, room, 0

    @property
    def finished(self) -> bool:
        """Returns whether there is no further chunk."""
        return self.done == len(self._tokens) - 1

    def next(self) -> tuple[np.ndarray, np.ndarray, int, int]:
        """Returns the next chunk: (tokens [1, C], targets [1, C], tokens before it, in it)."""
        end = min(self.done + min(CHUNKS[-1], self._room), len(self._tokens) - 1)
        count = end - self.done
        size = min(next(size for size in CHUNKS if size >= count), self._room)
        # The padding of a last chunk must not reach beyond the cache, where it would be moved.
        start = min(self.done, self._room - size)
        chunk, targets = np.zeros((2, 1, size), np.int32)
        chunk[0, : end - start] = self._tokens[start:end]
        targets[0, : end - start] = self._tokens[start + 1 : end + 1]
        self.done = end
        return chunk, targets, start, end - start
