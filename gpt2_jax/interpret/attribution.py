"""Divides a logit into what each part of the model adds to it directly.

The logit is a product of the last residual stream with the token's output vector. The stream is a
sum, and a norm whose statistics are held fixed is linear: so each head, MLP and embedding has its
own part, and the parts sum to the logit (Elhage et al. 2021, "A mathematical framework for
transformer circuits"). What a part does through later layers is theirs, not its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.interpret import attention, stream
from gpt2_jax.interpret.run import Run
from gpt2_jax.model.mup import output_scale
from gpt2_jax.model.params import output_table
from gpt2_jax.model.residual import NORM_POSITIONS


class Parts(NamedTuple):
    """Says where the parts of a logit stand in an array, in this order.

    Attributes:
      heads: of all heads, layer by layer.
      attention_biases, mlps: of each layer.
      token, position: of the embeddings.
      norm_biases: of all norms that the stream goes through.
      total: the logit, before a softcap.
    """

    heads: slice
    attention_biases: slice
    mlps: slice
    token: int
    position: int
    norm_biases: int
    total: int


def parts_of(config: ModelConfig) -> Parts:
    """Returns where the parts of a model's logits stand."""
    L, H = config.num_layers, config.num_heads
    heads, biases, mlps = slice(0, L * H), slice(L * H, L * H + L), slice(L * H + L, L * (H + 2))
    last = L * (H + 2)
    return Parts(heads, biases, mlps, last, last + 1, last + 2, last + 3)


def attribution(run: Run, position: int, token: int) -> np.ndarray:
    """Returns the parts of a token's logit behind one position, float32 [L H + 2 L + 4].

    They stand as `parts_of` says; all but the last, which is the logit before a softcap, sum to
    it.

    Raises:
      UserError: if a residual stream was swapped in, which is no sum of parts.
    """
    if any(swap.site == "resid_post" for swap in run.interventions.swaps):
        raise UserError("attribution: the residual stream of another text is no sum of this one's")
    subject = run.subject
    config, place = subject.config, parts_of(subject.config)
    parts_NxD = np.zeros((place.total, config.d_model))
    parts_NxD[place.token] = stream.token_row(run, position)
    parts_NxD[place.position] = stream.position_row(run, position)
    embeddings_NxD = parts_NxD.copy()
    for layer in range(config.num_layers):
        parts_NxD = _behind_block(run, layer, position, parts_NxD, embeddings_NxD)
    if NORM_POSITIONS[config.norm_position].has_final:
        x_D = np.asarray(run.residual[-1, position])
        parts_NxD = _normalized(config, subject.outside["ln_f"], x_D, parts_NxD)
    output_D = np.asarray(output_table(subject.outside)[token], np.float64)
    logits_N = output_scale(config) * parts_NxD @ output_D
    return np.append(logits_N, logits_N.sum()).astype(np.float32)


def _behind_block(
    run: Run, layer: int, position: int, parts_NxD: np.ndarray, embeddings_NxD: np.ndarray
) -> np.ndarray:
    """Returns the parts of the residual stream behind a block, from those before it."""
    config, place = run.subject.config, parts_of(run.subject.config)
    names = ("resid_pre", "resid_mid", "attn/z", "attn/out", "mlp/out")
    values = {name: np.asarray(run.block(layer)[name][0, position]) for name in names}
    params = run.subject.params[f"h_{layer}"]
    if config.x0_residual:
        mix = params["x0_mix"]
        parts_NxD = float(mix["of_x"]) * parts_NxD + float(mix["of_y"]) * embeddings_NxD
    H, post = config.num_heads, config.norm_position == "post"
    z_HxK = values["attn/z"].astype(np.float64)
    own = slice(layer * H, (layer + 1) * H)
    parts_NxD = parts_NxD.copy()
    parts_NxD[own] = np.einsum("hk,hkd->hd", z_HxK, attention.projection(run, layer))
    parts_NxD[place.attention_biases.start + layer] = attention.projection_bias(run, layer)
    if post:
        x_D = values["resid_pre"] + values["attn/out"]
        parts_NxD = _normalized(config, params["ln_1"], x_D, parts_NxD)
    parts_NxD[place.mlps.start + layer] = values["mlp/out"]
    if post:
        x_D = values["resid_mid"] + values["mlp/out"]
        parts_NxD = _normalized(config, params["ln_2"], x_D, parts_NxD)
    return parts_NxD


def _normalized(
    config: ModelConfig, params: Mapping[str, Any], x_D: np.ndarray, parts_NxD: np.ndarray
) -> np.ndarray:
    """Returns parts of norm(x), given parts of x, with the statistics of x held fixed.

    The norm's bias is added to its own part.
    """
    x_D = x_D.astype(np.float64)
    if config.norm == "layer":
        parts_NxD = parts_NxD - parts_NxD.mean(-1, keepdims=True)
        x_D = x_D - x_D.mean()
    scale_D = np.asarray(params["scale"]) / np.sqrt((x_D**2).mean() + config.layer_norm_epsilon)
    parts_NxD = parts_NxD * scale_D
    if "bias" in params:
        parts_NxD[parts_of(config).norm_biases] += np.asarray(params["bias"])
    return parts_NxD
