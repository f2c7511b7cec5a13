"""Holds the key-value cache: an explicit pytree that programs take and return."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpt2_jax.config import ModelConfig

LayerCache = tuple[jax.Array, jax.Array]


class KVCache(NamedTuple):
    """Holds the keys and values of the tokens seen so far.

    Decoding keeps the layers in separate arrays, so that each is updated in place; scanned blocks
    need them stacked, like their parameters.

    Slot s of a row holds the token at position s, whatever the length of the other rows: prompts
    are padded on the right, and slots past `lengths`, which hold padding, are masked until real
    tokens overwrite them.

    Attributes:
      layers: (keys, values) of each layer, both [B, H, S, K], so that the slots of a head lie side
        by side; or one stacked pair, [L, B, H, S, K].
      lengths: [B] int32, number of tokens that each row holds.
    """

    layers: tuple[LayerCache, ...] | LayerCache
    lengths: jax.Array

    @property
    def stacked(self) -> bool:
        """Returns whether the layers are stacked in one pair of arrays."""
        return not isinstance(self.layers[0], tuple)


def bytes_per_slot(config: ModelConfig, dtype: str) -> int:
    """Returns the bytes that one token of one sequence needs in the cache, over all layers."""
    return 2 * config.num_layers * config.d_model * jnp.dtype(dtype).itemsize


def init_cache(
    config: ModelConfig,
    dtype: str,
    batch_size: int,
    room: int | None = None,
    *,
    stacked: bool = False,
) -> KVCache:
    """Returns an empty cache.

    Args:
      config: config of the model.
      dtype: dtype of keys and values, which is the compute dtype.
      batch_size: number of rows.
      room: tokens that each row has room for, at most `config.longest`; by default the context
        length. A window of attention needs no fewer.
      stacked: whether the layers are stacked, as scanned blocks need them.

    Raises:
      ValueError: if there are more slots than the model has positions, or none.
    """
    room = config.context_length if room is None else room
    if not 1 <= room <= config.longest:
        raise ValueError(f"room={room} must be in 1..{config.longest}")
    shape = (batch_size, config.num_heads, room, config.head_dim)
    if stacked:
        shape = (config.num_layers, *shape)

    def layer() -> LayerCache:
        # Each call makes new buffers: a donated cache must not hold one array twice.
        return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)

    layers = layer() if stacked else tuple(layer() for _ in range(config.num_layers))
    return KVCache(layers, jnp.zeros((batch_size,), jnp.int32))


def append(layer: LayerCache, new: LayerCache, lengths_B: jax.Array) -> LayerCache:
    """Writes T new keys and values behind those that each row holds; there must be room.

    Args:
      layer: (keys, values) of one layer, [B, H, S, K].
      new: the new (keys, values), [B, T, H, K].
      lengths_B: number of slots in use before the write.

    Returns:
      The layer's (keys, values), the new ones in slots lengths..lengths+T-1 of each row.
    """

    def write(slots_HxSxK: jax.Array, new_HxTxK: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(slots_HxSxK, new_HxTxK, start, axis=1)

    keys, values = (
        jax.vmap(write)(held, jnp.swapaxes(fresh, 1, 2).astype(held.dtype), lengths_B)
        for held, fresh in zip(layer, new, strict=True)
    )
    return keys, values
