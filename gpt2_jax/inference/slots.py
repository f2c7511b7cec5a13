"""The device's side of generation: rows of a batch (slots) that texts enter and leave one by one.

A text is prefilled alone, all but its last token, into a cache of one row; `insert` copies that row
into a slot; `decode_block` reads the last token of every slot in use and draws the next one, up to
`BLOCK_TOKENS` times. So the first token is drawn like any other, and the last one is never read.
What a slot draws depends on nothing in the others: all shapes are fixed, attention goes over blocks
whose number changes no bit, and each row has its own options and its own noise.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt2_jax.inference.penalties import History
from gpt2_jax.inference.prefill import (
    MOST_LOGPROBS,
    Drawn,
    empty_cache,
    replicated,
    sharded,
    with_logprobs,
)
from gpt2_jax.inference.sampling import SamplingOptions, Settings, draw, key_of_choice, settings_of
from gpt2_jax.model.cache import KVCache
from gpt2_jax.model.gpt2 import GPT2

BLOCK_TOKENS = 16
"""The most tokens that a slot draws in one call of the host."""
NONE = -1
"""Stands in place of a token where none was drawn."""


class Slots(NamedTuple):
    """Holds the state of all slots; programs take it over and return the next one.

    Attributes:
      cache: keys and values of the tokens that the model has read.
      pending_B: int32, the last token, which the model has not read yet.
      active_B: bool, whether the slot goes on.
      remaining_B: int32, tokens it may still draw.
      drawn_B: int32, tokens it has drawn.
      settings: how it draws.
      history: its tokens, prompt and pending token included.
    """

    cache: KVCache
    pending_B: Any
    active_B: Any
    remaining_B: Any
    drawn_B: Any
    settings: Settings
    history: History


class Row(NamedTuple):
    """Holds what a text brings into its slot, besides its keys and values.

    Attributes:
      tokens_S: int32, its tokens, padded to the number of slots of the cache.
      length: int32, how many they are.
      remaining: int32, tokens to draw, at least 1.
      drawn: int32, tokens drawn before, by which the noise goes on.
      choice: uint32, its number among the choices of its seed.
      settings: of `settings_of`.
    """

    tokens_S: Any
    length: Any
    remaining: Any
    drawn: Any
    choice: Any
    settings: Settings


@functools.partial(jax.jit, static_argnames=("model", "num_slots", "room"))
def empty_slots(model: GPT2, num_slots: int, room: int) -> Slots:
    """Returns slots of which none is in use.

    Args:
      model: a module of `build_decoder`.
      num_slots: B, how many texts are generated at a time.
      room: S, the tokens that each slot has room for, prompt included.
    """
    B, V = num_slots, model.config.vocab_size
    settings = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (B, *leaf.shape)), _neutral())
    history = History(
        tokens_BxS=jnp.zeros((B, room), jnp.int32),
        lengths_B=jnp.zeros(B, jnp.int32),
        counts_BxV=jnp.zeros((B, V), jnp.int32),
        in_prompt_BxV=jnp.zeros((B, V), bool),
    )
    slots = Slots(
        cache=empty_cache(model, B, room),
        pending_B=jnp.zeros(B, jnp.int32),
        active_B=jnp.zeros(B, bool),
        remaining_B=jnp.zeros(B, jnp.int32),
        drawn_B=jnp.zeros(B, jnp.int32),
        settings=settings,
        history=history,
    )
    return _laid_out(slots)


def _neutral() -> Settings:
    """Returns the settings of a row for which nothing is to be computed."""
    return jax.tree.map(jnp.asarray, settings_of(SamplingOptions(temperature=0), (), 0))


@functools.partial(jax.jit, static_argnames="continued", donate_argnames="slots")
def insert(
    slots: Slots, staged: KVCache, row: Row, index: jax.Array, *, continued: bool = False
) -> Slots:
    """Puts a text into a slot; the next `decode_block` reads its last token first.

    Args:
      slots: the state, whose slot `index` is overwritten as a whole.
      staged: the cache of the text's other tokens, of one row.
      row: the rest.
      index: the slot.
      continued: whether the slot's own text goes on, with fewer of its tokens; counts of what it
        has generated, and what was in its prompt, then stay as they are.
    """
    V = slots.history.counts_BxV.shape[1]
    if continued:
        counts_V, in_prompt_V = slots.history.counts_BxV[index], slots.history.in_prompt_BxV[index]
    else:
        inside_S = jnp.arange(row.tokens_S.shape[0]) < row.length
        ids_S = jnp.where(inside_S, row.tokens_S, V)  # beyond the end nothing is written
        in_prompt_V = jnp.zeros(V, bool).at[ids_S].set(True, mode="drop")
        counts_V = jnp.zeros(V, jnp.int32)
    key_2 = key_of_choice(row.settings.keys_Bx2, row.choice)
    values = Slots(
        cache=None,  # pyright: ignore[reportArgumentType]
        pending_B=row.tokens_S[row.length - 1],
        active_B=jnp.bool_(True),
        remaining_B=row.remaining,
        drawn_B=row.drawn,
        settings=row.settings._replace(keys_Bx2=key_2),
        history=History(row.tokens_S, row.length, counts_V, in_prompt_V),
    )
    alone = jax.tree.map(lambda leaf: leaf[None], values)
    alone = alone._replace(cache=KVCache(staged.layers, row.length[None] - 1))
    return _laid_out(_put(slots, alone, index))


@functools.partial(jax.jit, static_argnames=("model", "logprobs"), donate_argnames="slots")
def decode_block(
    model: GPT2, params: Any, slots: Slots, count: jax.Array, *, logprobs: bool = False
) -> tuple[Slots, Drawn]:
    """Draws up to `count` tokens in every slot in use: (slots, tokens [B, BLOCK_TOKENS]).

    It ends early when no slot goes on.

    Args:
      model: a module of `build_decoder`.
      params: parameters of `generate.decode_params`.
      slots: the state.
      count: int32, at most `BLOCK_TOKENS`.
      logprobs: whether to return log-probabilities.
    """

    def go_on(carry: Any) -> jax.Array:
        i, slots, _ = carry
        return (i < count) & slots.active_B.any()

    def step(carry: Any) -> Any:
        i, slots, block = carry
        # Slots that are not in use read a token of no text at the beginning of their row.
        lengths_B = jnp.where(slots.active_B, slots.history.lengths_B - 1, 0)
        cache = slots.cache._replace(lengths=lengths_B)
        logits: Any
        logits, cache = model.apply(
            {"params": params}, slots.pending_B[:, None], cache, method=GPT2.logits
        )
        slots, drawn = _draw(slots._replace(cache=cache), logits[:, 0], logprobs)
        block = jax.tree.map(
            lambda array, new: jax.lax.dynamic_update_index_in_dim(array, new, i, axis=1),
            block,
            drawn,
        )
        return i + 1, slots, block

    B = slots.pending_B.shape[0]
    block = Drawn(jnp.full((B, BLOCK_TOKENS), NONE, jnp.int32))
    if logprobs:
        top = (B, BLOCK_TOKENS, min(MOST_LOGPROBS, model.config.vocab_size))
        block = Drawn(
            block.tokens,
            jnp.zeros((B, BLOCK_TOKENS), jnp.float32),
            jnp.zeros(top, jnp.int32),
            jnp.zeros(top, jnp.float32),
        )
    _, slots, block = jax.lax.while_loop(go_on, step, (jnp.int32(0), slots, block))
    return _laid_out(slots), replicated(block)


@functools.partial(jax.jit, donate_argnames="slots")
def release(slots: Slots, index: jax.Array) -> Slots:
    """Returns the slots with one that goes on no more, and costs nothing but its forward pass."""
    neutral = jax.tree.map(lambda leaf: leaf[None], _neutral())
    slots = slots._replace(
        active_B=slots.active_B.at[index].set(False),
        settings=_put(slots.settings, neutral, index),
    )
    return _laid_out(slots)


def _put(arrays: Any, row: Any, index: jax.Array) -> Any:
    """Returns a tree of arrays with one row of each overwritten."""

    def put(array: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(array, new.astype(array.dtype), index, axis=0)

    return jax.tree.map(put, arrays, row)


def _laid_out(slots: Slots) -> Slots:
    """Returns the slots with every array where the mesh in force, if there is one, has it.

    XLA would otherwise choose, and each choice of its own would compile the next program again.
    """
    return replicated(slots._replace(cache=None))._replace(cache=sharded(slots.cache))


def _draw(slots: Slots, logits_BxV: jax.Array, logprobs: bool) -> tuple[Slots, Drawn]:
    """Draws the next token of every slot that goes on."""
    history, active_B = slots.history, slots.active_B
    token_B = draw(logits_BxV, slots.settings, history, slots.drawn_B)
    rows_B = jnp.arange(len(token_B))

    def counted(counts_BxV: jax.Array) -> jax.Array:
        return counts_BxV.at[rows_B, token_B].add(active_B.astype(jnp.int32))

    S = history.tokens_BxS.shape[1]
    at_B = jnp.where(active_B, history.lengths_B, S)  # beyond the end nothing is written
    history = History(
        tokens_BxS=history.tokens_BxS.at[rows_B, at_B].set(token_B, mode="drop"),
        lengths_B=history.lengths_B + active_B,
        counts_BxV=jax.lax.cond(
            slots.settings.penalties.counting, counted, lambda x: x, history.counts_BxV
        ),
        in_prompt_BxV=history.in_prompt_BxV,
    )
    remaining_B = slots.remaining_B - active_B
    ended_B = (token_B[:, None] == slots.settings.ends_BxE).any(-1) | (remaining_B <= 0)
    shown_B = jnp.where(active_B, token_B, NONE)
    drawn = with_logprobs(logits_BxV, token_B) if logprobs else Drawn(shown_B)
    slots = slots._replace(
        pending_B=token_B,
        active_B=active_B & ~ended_B,
        remaining_B=remaining_B,
        drawn_B=slots.drawn_B + active_B,
        history=history,
    )
    return slots, drawn._replace(tokens=shown_B)
