"""Tests that a mesh that divides the model's heads gives the tokens of one device."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest

from gpt2_jax.config import MeshConfig
from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.generate import decode_params
from gpt2_jax.inference.requests import Request
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import boxed_params, build_decoder
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, shardings
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.tiny import noisy_params, tiny_config

_CONFIG = tiny_config(num_layers=1, scan_unroll=1)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 1, 2), (2, 2, 2)])
def test_tokens_on_a_mesh_are_those_of_one_device(sizes: tuple[int, int, int]) -> None:
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: math.prod(sizes)])
    model = build_decoder(_CONFIG.model, _CONFIG.compute)
    whole = noisy_params(_CONFIG)
    boxed = jax.eval_shape(lambda key: boxed_params(_CONFIG.model, key), jax.random.key(0))
    divided = jax.device_put(
        whole, shardings(boxed, mesh, Rules(), unused=("distance", "vector", "lora_rank"))
    )
    prompts = [np.random.default_rng(i).integers(0, 256, 3 + i).tolist() for i in range(3)]

    def said(params: Any, **options: Any) -> list[Any]:
        engine = Engine(
            model, decode_params(model, params), ByteTokenizer(), num_slots=2, **options
        )
        choices = []
        for i, prompt in enumerate(prompts):
            drawing = SamplingOptions(temperature=0 if i == 0 else 0.7, top_k=20 * i)
            choices += engine.submit(Request(prompt, 20, drawing))
        while engine.busy:
            engine.step()
        if "mesh" in options:
            (keys, _), *_ = engine._slots.cache.layers
            assert keys.sharding.shard_shape(keys.shape)[1] == keys.shape[1] // 2
        return [choice.tokens for choice in choices]

    assert said(divided, mesh=mesh) == said(whole)
