"""Holds the position encodings, which tell a model the order of its tokens (`model.position`).

To add one, write a `PositionEncoding` and its entry in `ENCODINGS`, and add its name to `POSITIONS`
of the config.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.model.embedding import embed
from gpt2_jax.model.lora import RANK_AXIS
from gpt2_jax.model.relative import relative_scores

_INIT_STD = 0.01  # as OpenAI's release code initializes wpe
_ROTARY_BASE = 10_000.0


class Table(NamedTuple):
    """Names the parameter that has a row for each position or distance.

    Attributes:
      name: the leaf's own name.
      axis: of positions or distances, in scanned parameters.
    """

    name: str
    axis: int


class PositionEncoding(NamedTuple):
    """Describes one position encoding by the places where it enters the model.

    Attributes:
      declare: (the GPT2 module, its config) -> the parameters it declares there, if it has any.
      embed: (these parameters, embeddings [B, T, D], positions [B or 1, T], how to compute) -> new
        embeddings; None leaves them unchanged.
      rotate: (queries or keys [B, T, H, K], positions [B or 1, T]) -> rotated ones, before keys
        enter the cache; None leaves them unchanged.
      score_bias: (the Attention module, in which it may declare parameters; queries [B, T, H, K];
        their slots [B or 1, T]; number of slots S) -> what is added to the scaled scores, float32
        [B or 1, H, T, S]; None adds nothing.
      table: its parameter with a row for each position or distance; None if it has none.
      axes: logical names of parameter axes that no other part of the model has.
      num_params: config -> number of its parameters.
      score_products: products that it computes for the scores of each pair of tokens, besides the
        one of query and key; its parameters are then multiplied nowhere else.
    """

    declare: Callable[[nn.Module, ModelConfig], Any] = lambda module, config: None
    embed: Callable[[Any, jax.Array, jax.Array, ComputeConfig], jax.Array] | None = None
    rotate: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    score_bias: Callable[[Any, jax.Array, jax.Array, int], jax.Array] | None = None
    table: Table | None = None
    axes: tuple[str, ...] = ()
    num_params: Callable[[ModelConfig], int] = lambda config: 0
    score_products: int = 0


_TABLE_AXES = ("position", "embed")


def _declare_table(module: nn.Module, config: ModelConfig) -> Any:
    """Declares `wpe`, a learned row for each position (Radford et al. 2018)."""
    init = nn.with_logical_partitioning(nn.initializers.normal(_INIT_STD), _TABLE_AXES)
    return module.param("wpe", init, (config.context_length, config.d_model), jnp.float32)


def _add_rows(
    wpe: jax.Array, x_BxTxD: jax.Array, positions_BxT: jax.Array, compute: ComputeConfig
) -> jax.Array:
    """Adds each position's row to its token's embedding."""
    return x_BxTxD + embed(wpe, positions_BxT, _TABLE_AXES, compute)


def rotate_half(x_BxTxHxK: jax.Array, positions_BxT: jax.Array) -> jax.Array:
    """Rotates pairs of channels (k, k + K/2) by angles proportional to the position.

    The angle of pair i at position t is t * 10000^(-2i/K) (Su et al. 2021, section 3.2.2, in the
    half-split order of GPT-NeoX). Computes in float32 and returns the dtype of x.
    """
    half = x_BxTxHxK.shape[-1] // 2
    frequencies_K2 = _ROTARY_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles_BxTx1xK2 = positions_BxT[:, :, None, None].astype(jnp.float32) * frequencies_K2
    cos, sin = jnp.cos(angles_BxTx1xK2), jnp.sin(angles_BxTx1xK2)
    first, second = jnp.split(x_BxTxHxK.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BxTxHxK.dtype)


def alibi_slopes(num_heads: int) -> list[float]:
    """Returns the slope of each head (Press et al. 2022, section 3, and the authors' code).

    Of H = 2^a heads, head h has 2^(-8 (h + 1) / H). Other numbers of heads have the slopes of the
    power of two below, and then every second one of the power of two above.
    """
    power = 2 ** (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * (head + 1) / power) for head in range(power)]
    if power < num_heads:
        slopes += alibi_slopes(2 * power)[0::2][: num_heads - power]
    return slopes


def _alibi(module: Any, q_BxTxHxK: jax.Array, slots_BxT: jax.Array, room: int) -> jax.Array:
    """Returns slope_h (s - t) for a query in slot t and a key in slot s.

    Packed documents need nothing else, because a distance in slots is one in positions.
    """
    distances_Bx1xTxS = jnp.arange(room) - slots_BxT[:, None, :, None]
    slopes_Hx1x1 = jnp.asarray(alibi_slopes(q_BxTxHxK.shape[2]), jnp.float32)[:, None, None]
    return slopes_Hx1x1 * distances_Bx1xTxS


ENCODINGS: dict[str, PositionEncoding] = {
    "learned": PositionEncoding(
        declare=_declare_table,
        embed=_add_rows,
        table=Table("wpe", axis=0),
        axes=("position",),
        num_params=lambda config: config.context_length * config.d_model,
    ),
    "rotary": PositionEncoding(rotate=rotate_half),
    "alibi": PositionEncoding(score_bias=_alibi),
    "relative": PositionEncoding(
        score_bias=relative_scores,
        table=Table("relative", axis=1),
        axes=("distance",),
        num_params=lambda config: config.num_layers * config.context_length * config.d_model,
        score_products=1,
    ),
    "none": PositionEncoding(),
}


def unused_axes(config: ModelConfig) -> frozenset[str]:
    """Returns the logical axes of parameters that only models of other configs have.

    These are the axes of other position encodings and, without adapters, that of their rank.
    """
    all_axes = {axis for encoding in ENCODINGS.values() for axis in encoding.axes}
    rank = set() if config.lora_rank else {RANK_AXIS}
    return frozenset((all_axes - set(ENCODINGS[config.position].axes)) | rank)


def restarting_positions(segments_BxT: jax.Array) -> jax.Array:
    """Returns positions [B, T] that count from 0 at the first token of every segment."""
    slots_T = jnp.arange(segments_BxT.shape[1])
    starts_BxT = jnp.pad(segments_BxT[:, 1:] != segments_BxT[:, :-1], ((0, 0), (1, 0)))
    return slots_T - jax.lax.cummax(jnp.where(starts_BxT, slots_T, 0), axis=1)
