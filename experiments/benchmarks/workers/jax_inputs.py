"""Writes the weights that all subjects read: our own export, in Hugging Face's format.

Every tensor is random, biases and norms too: at initialization these are zero and one, and two of
them could be swapped without a change of any logit.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.case import Shape
from gpt2_jax.config import ModelConfig
from gpt2_jax.formats import huggingface
from gpt2_jax.model.build import abstract_params
from gpt2_jax.tokenizers.ids import IdsTokenizer


@dataclasses.dataclass
class Written:
    """Holds nothing to measure."""

    facts: dict[str, Any]

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Does nothing."""
        return {}


def prepare(task: dict[str, Any]) -> Written:
    """Writes a model of `task["shape"]` into the folder `task["folder"]`."""
    shape = Shape(**task["shape"])
    config = ModelConfig(
        num_layers=shape.layers,
        num_heads=shape.heads,
        d_model=shape.width,
        context_length=shape.context,
        vocab_size=shape.vocab,
        vocab_multiple=1,
    )
    random = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        values = 0.02 * random.standard_normal(leaf.shape, np.float32)
        is_scale = getattr(path[-1], "key", None) == "scale"
        return values + np.float32(1) if is_scale else values

    params = jax.tree_util.tree_map_with_path(draw, abstract_params(config))
    folder = Path(task["folder"])
    folder.mkdir(parents=True)
    reason = "the benchmark has ids alone"
    huggingface.write(folder, config, params, IdsTokenizer(shape.vocab, reason))
    return Written({"parameters": shape.params})
