"""Maximal update parametrization, muP (Yang et al. 2022, "Tensor Programs V", table 8).

In it, the best learning rate of a narrow model is also that of a wide one. With a base width D0
(`model.mup_base_width`), at which muP is the standard parametrization, and m = D / D0:

    parameters                  initial deviation   learning rate   forward
    wte, wpe                    as at D0            as at D0        times `mup_input_alpha`
    matrices of the blocks      over sqrt(m)        over m          as they are
    biases, norms, mixtures     as at D0            as at D0        as they are
    output matrix, tied or not  as at D0            as at D0        times `mup_output_alpha` / m

Attention scores are scaled by sqrt(K0) / K, K0 the head width of the base model: that is
`mup_base_head_dim` or, unset, the model's own, because models like GPT-2 grow by heads of one
width. The other widths are assumed to grow like D. `training/mup.py` has the learning rates, which
depend on the optimizer.
"""

from __future__ import annotations

import math

import jax

from gpt2_jax.config import ModelConfig


def matrix_std(config: ModelConfig, std: float) -> float:
    """Returns the initial deviation of a matrix of the blocks.

    Args:
      config: config of the model.
      std: the deviation at the base width.
    """
    return std / math.sqrt(config.mup_width_multiplier)


def output_scale(config: ModelConfig) -> float:
    """Returns the factor of the logits, which the last hidden states are multiplied by; 1 in GPT-2.

    As in the authors' `MuReadout`: whatever computes logits or a loss of hidden states is then the
    same as without muP.
    """
    return config.mup_output_alpha / config.mup_width_multiplier


def scaled(x: jax.Array, factor: float) -> jax.Array:
    """Returns factor * x in the dtype of x; for a factor of 1, x without any operation."""
    return x if factor == 1 else factor * x
