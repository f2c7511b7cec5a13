"""Low-rank adapters, LoRA (Hu et al. 2022): y = x W + b + (alpha / r) (x A) B, with W frozen.

A is [inputs, r] and B [r, outputs], with the axes that the kernel W has. B is zero at first, so
that a new adapter changes nothing. A run trains A and B alone; `merge` adds them to W.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt2_jax.config import ModelConfig
from gpt2_jax.config.lora import parse_targets
from gpt2_jax.model.dropout import Dropout

LORA_A, LORA_B = "lora_a", "lora_b"
"""The names of the adapter's parameters, beside `kernel` in the parameters of a linear layer."""

RANK_AXIS = "lora_rank"
"""The logical name of the axis of length r."""


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Describes the adapter of a linear layer.

    Attributes:
      rank: r.
      alpha: the adapter's output is multiplied by alpha / r.
      dropout: probability of dropping a value of its input.
      train: whether dropout is active.
    """

    rank: int
    alpha: float
    dropout: float
    train: bool

    def dropped(self, x: jax.Array) -> jax.Array:
        """Returns the adapter's input; to be called inside of a module."""
        return Dropout(self.dropout, deterministic=not self.train)(x)


def adapter_of(config: ModelConfig, target: str, *, train: bool) -> Adapter | None:
    """Returns the adapter of a linear layer, such as `attn.c_attn`; None if it has none."""
    if not config.lora_rank or target not in parse_targets(config.lora_targets):
        return None
    return Adapter(config.lora_rank, config.lora_alpha, config.lora_dropout, train)


def declare(
    module: nn.Module,
    adapter: Adapter,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    axes: tuple[str | None, ...],
) -> tuple[jax.Array, jax.Array]:
    """Declares A [inputs, r] and B [r, outputs] in the module of a linear layer.

    Entries of A are uniform within 1 / sqrt(number of inputs), as in PEFT; B is zero.

    Args:
      module: the linear layer.
      adapter: see `Adapter`.
      inputs, outputs: sizes of the kernel's axes.
      axes: logical names of the kernel's axes.
    """
    bound = 1 / math.sqrt(math.prod(inputs))

    def uniform(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    count = len(inputs)
    init_a = nn.with_logical_partitioning(uniform, (*axes[:count], RANK_AXIS))
    init_b = nn.with_logical_partitioning(nn.initializers.zeros, (RANK_AXIS, *axes[count:]))
    a: Any = module.param(LORA_A, init_a, (*inputs, adapter.rank), jnp.float32)
    b: Any = module.param(LORA_B, init_b, (adapter.rank, *outputs), jnp.float32)
    return a, b


def without_adapters(config: ModelConfig) -> ModelConfig:
    """Returns the config of the model without adapters, as of its base or of merged weights."""
    defaults = ModelConfig()
    names = [field.name for field in dataclasses.fields(config) if field.name.startswith("lora_")]
    return dataclasses.replace(config, **{name: getattr(defaults, name) for name in names})


def num_params(config: ModelConfig) -> int:
    """Returns the number of parameters of all adapters."""
    if not config.lora_rank:
        return 0
    D, F = config.d_model, config.mlp_width
    sizes = {
        "attn.c_attn": D + 3 * D,
        "attn.c_proj": D + D,
        "mlp.c_fc": D + F,
        "mlp.c_gate": D + F,
        "mlp.c_proj": F + D,
    }
    targets = parse_targets(config.lora_targets)
    return config.num_layers * config.lora_rank * sum(sizes[name] for name in targets)


def merge(params: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Returns parameters without adapters that compute the same: W + (alpha / r) A B, in float32.

    Args:
      params: scanned parameters with adapters.
      config: their config.
    """
    scale = config.lora_alpha / config.lora_rank

    def merged(node: Mapping[str, Any]) -> dict[str, Any]:
        if LORA_A in node:
            kernel = _merged_kernel(node["kernel"], node[LORA_A], node[LORA_B], scale)
            others = {name: x for name, x in node.items() if name not in (LORA_A, LORA_B)}
            return others | {"kernel": kernel}
        return {
            name: merged(child) if isinstance(child, Mapping) else child
            for name, child in node.items()
        }

    return merged(params)


@jax.jit
def _merged_kernel(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """Returns [L, inputs, outputs] of a kernel, A [L, inputs, r] and B [L, r, outputs]."""
    L, r = a.shape[0], a.shape[-1]
    product = jnp.einsum(
        "lir,lro->lio", a.reshape(L, -1, r), b.reshape(L, r, -1), precision="highest"
    )
    return kernel + scale * product.reshape(kernel.shape)
