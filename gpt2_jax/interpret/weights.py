"""Shows the parameters that single numbers of a run are computed with, a column at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpt2_jax.interpret.attention import projection
from gpt2_jax.interpret.run import Run


def gain(run: Run, layer: int, which: int) -> np.ndarray:
    """Returns gain and bias of a block's norm, float32 [2, D]: `which` is 1 or 2."""
    return _gain(run, run.subject.params[f"h_{layer}"].get(f"ln_{which}", {}))


def final_gain(run: Run) -> np.ndarray:
    """Returns gain and bias of the norm behind the last block, float32 [2, D]."""
    return _gain(run, run.subject.outside.get("ln_f", {}))


def _gain(run: Run, params: Mapping[str, Any]) -> np.ndarray:
    """Returns [2, D]; a norm without gain or bias multiplies by 1 and adds 0."""
    width = run.subject.config.d_model
    parts = params.get("scale", np.ones(width)), params.get("bias", np.zeros(width))
    return np.stack([np.asarray(part, np.float32) for part in parts])


def qkv_column(run: Run, layer: int, head: int, entry: int) -> np.ndarray:
    """Returns what makes one entry of a head's queries, keys and values, float32 [3, D + 1].

    Rows: a column of W_Q, of W_K and of W_V, which what attention reads is multiplied with, and
    behind each its bias, 0 if the model has none.
    """
    params = run.subject.params[f"h_{layer}"]["attn"]["c_attn"]
    columns_3xD = np.asarray(params["kernel"])[:, :, head, entry].T
    bias = params.get("bias")
    biases_3 = np.zeros(3) if bias is None else np.asarray(bias)[:, head, entry]
    return np.concatenate([columns_3xD, biases_3[:, None]], axis=1).astype(np.float32)


def projection_column(run: Run, layer: int, head: int, entry: int) -> np.ndarray:
    """Returns what makes one entry of what a head writes, float32 [K]: a column of its W_O."""
    return projection(run, layer)[head, :, entry]
