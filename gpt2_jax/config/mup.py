"""Checks the knobs of muP against the others."""

from __future__ import annotations

import dataclasses

from gpt2_jax.config.model import ModelConfig
from gpt2_jax.config.sections import OptimizerConfig
from gpt2_jax.errors import UserError

# The optimizers for which `training/mup.py` knows the learning rate of matrices.
_OPTIMIZERS = ("adamw", "lion", "muon")
# Knob that only muP reads -> the value that stands for not being set.
_UNSET = {
    field.name: field.default
    for field in dataclasses.fields(ModelConfig)
    if field.name.startswith("mup_") and field.name != "mup_base_width"
}


def check_mup(model: ModelConfig, optimizer: OptimizerConfig) -> None:
    """Refuses knobs of muP that would have no effect, and an optimizer without rates for it.

    Raises:
      UserError: naming the knob and what it needs.
    """
    given = [name for name, unset in _UNSET.items() if getattr(model, name) != unset]
    if model.mup_base_width is None:
        if given:
            raise UserError(
                f"model.{given[0]}={getattr(model, given[0]):g} has no effect without muP: set "
                "model.mup_base_width, the d_model at which muP is the standard parametrization"
            )
        return
    if optimizer.name not in _OPTIMIZERS:
        raise UserError(
            f"optimizer.name={optimizer.name} has no learning rates for muP, and "
            f"model.mup_base_width={model.mup_base_width} asks for it: choose one of "
            f"{', '.join(_OPTIMIZERS)}, or unset model.mup_base_width"
        )
    scale = None
    if model.attention_scale is not None:
        scale = f"model.attention_scale={model.attention_scale:g}"
    elif not model.scale_attn_weights:
        scale = "model.scale_attn_weights=false"
    if scale and model.mup_base_head_dim is not None:
        raise UserError(
            f"model.mup_base_head_dim={model.mup_base_head_dim} and {scale} both set the factor of "
            "attention scores: unset one of them"
        )
