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
      UserError: if a residual stream was swapped in there, which is no sum of parts.
    """
    if any(at.site == "resid_post" and at.position == position for at in run.interventions.swaps):
        raise UserError(
            f"attribution: the residual stream at position {position} is that of another text, and "
            "no sum of this one's parts"
        )
    subject = run.subject
    config, place = subject.config, parts_of(subject.config)
    parts_NxD = np.zeros((place.total, config.d_model))
    parts_NxD[place.token] = stream.token_row(run, position)
    parts_NxD[place.position] = stream.position_row(run, position)
    embeddings_NxD = parts_NxD.copy()
    for layer in range(config.num_layers):
        if config.x0_residual:
            mix = subject.params[f"h_{layer}"]["x0_mix"]
            parts_NxD = float(mix["of_x"]) * parts_NxD + float(mix["of_y"]) * embeddings_NxD
        _add_block(run, layer, position, parts_NxD)
    if NORM_POSITIONS[config.norm_position].has_final:
        parts_NxD[:] = _normalized(config, subject.outside["ln_f"], parts_NxD)
    output_D = np.asarray(output_table(subject.outside)[token], np.float64)
    logits_N = output_scale(config) * parts_NxD @ output_D
    return np.append(logits_N, logits_N.sum()).astype(np.float32)


def _add_block(run: Run, layer: int, position: int, parts_NxD: np.ndarray) -> None:
    """Adds the parts of a block, and takes all parts so far through its norms on the stream."""
    config, place = run.subject.config, parts_of(run.subject.config)
    params, is_post = run.subject.params[f"h_{layer}"], config.norm_position == "post"
    z_Hx1xK = run.z[layer, position][:, None].astype(np.float64)
    own = slice(layer * config.num_heads, (layer + 1) * config.num_heads)
    parts_NxD[own] = (z_Hx1xK @ attention.projection(run, layer))[:, 0]
    parts_NxD[place.attention_biases.start + layer] = attention.projection_bias(run, layer)
    if is_post:
        parts_NxD[:] = _normalized(config, params["ln_1"], parts_NxD)
    parts_NxD[place.mlps.start + layer] = run.mlp_out[layer, position]
    if is_post:
        parts_NxD[:] = _normalized(config, params["ln_2"], parts_NxD)


def _normalized(
    config: ModelConfig, params: Mapping[str, Any], parts_NxD: np.ndarray
) -> np.ndarray:
    """Returns the parts of norm(x), given those of x, with the statistics of x held fixed.

    The norm's bias is added to the part of all such biases.
    """
    if config.norm == "layer":
        parts_NxD = parts_NxD - parts_NxD.mean(-1, keepdims=True)
    x_D = parts_NxD.sum(0)
    scale_D = np.asarray(params["scale"]) / np.sqrt((x_D**2).mean() + config.layer_norm_epsilon)
    parts_NxD = parts_NxD * scale_D
    if "bias" in params:
        parts_NxD[parts_of(config).norm_biases] += np.asarray(params["bias"])
    return parts_NxD
