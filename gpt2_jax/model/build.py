"""Makes GPT2 modules and their parameters; nothing else calls the constructor."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.model.defaults import with_dtype
from gpt2_jax.model.gpt2 import GPT2


def build_model(
    model: ModelConfig,
    compute: ComputeConfig,
    *,
    scanned: bool = True,
    train: bool = False,
) -> GPT2:
    """Returns the module of a config, which holds no arrays and may be a static argument of jit.

    Args:
      model: which function it is; its `vocab_size` must be set.
      compute: how it is computed; the parameters do not depend on it.
      scanned: whether the blocks are one scan over stacked parameters, or unrolled; see `GPT2`.
      train: whether dropout and remat are active.
    """
    if not train:  # so that the kernels that know no dropout can be chosen
        model = dataclasses.replace(model, dropout=0.0)
    return GPT2(model, with_dtype(compute), scanned=scanned, train=train)


def build_decoder(model: ModelConfig, compute: ComputeConfig, *, scanned: bool = False) -> GPT2:
    """Returns the module for a KV cache or attention maps: no dropout and no fused kernels."""
    compute = dataclasses.replace(compute, attention="reference", scan_unroll=1)
    return build_model(model, compute, scanned=scanned)


def boxed_params(model: ModelConfig, key: jax.Array) -> Any:
    """Returns new scanned parameters, in flax's boxes that carry the names of their axes."""
    tokens = jnp.zeros((1, model.context_length), jnp.int32)
    # The reference kernel: fused ones need devices or shapes that initialization need not have.
    return build_decoder(model, ComputeConfig(), scanned=True).init(key, tokens)["params"]


@functools.cache
def boxed_shapes(model: ModelConfig) -> Any:
    """Returns the parameters as `boxed_params` does, with ShapeDtypeStructs in the boxes."""
    return jax.eval_shape(lambda key: boxed_params(model, key), jax.random.key(0))


def abstract_params(model: ModelConfig) -> Any:
    """Returns the scanned parameters as ShapeDtypeStructs, whole on the first local device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed_shapes(model)),
    )
