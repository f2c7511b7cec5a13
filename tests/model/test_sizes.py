from __future__ import annotations

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from gpt2_jax.config import ModelConfig, load_config, with_vocab_size
from gpt2_jax.model.build import abstract_params, boxed_params
from gpt2_jax.model.flops import flops_per_token, num_params

_CONFIGS = Path(__file__).parents[2] / "configs"
_SIZES = {
    "small": 124_439_808,
    "medium": 354_823_168,
    "large": 774_030_080,
    "xl": 1_557_611_200,
}


def load_model_config(name):
    return with_vocab_size(load_config(_CONFIGS / f"gpt2_{name}.py"), 50257).model


@pytest.mark.parametrize(("name", "count"), _SIZES.items())
def test_the_four_sizes_have_exactly_their_parameters(name, count):
    config = load_model_config(name)
    made = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)))
    padded_rows = config.padded_vocab_size - config.vocab_size
    assert (config.vocab_size, config.padded_vocab_size) == (50257, 50304)
    assert made - padded_rows * config.d_model == count
    assert num_params(config) == count
    assert num_params(config, padded=True) == made


def test_flops_are_six_per_parameter_and_six_per_layer_position_and_width():
    config = load_model_config("small")
    assert flops_per_token(config) == 6 * 124_439_808 + 6 * 12 * 1024 * 768


def test_initialization_has_the_deviations_of_gpt2(tiny):
    config = tiny(d_model=64, vocab_size=512, context_length=64, num_layers=3).config
    params = jax.jit(lambda key: nn.unbox(boxed_params(config, key)))(jax.random.key(0))
    residual = 0.02 / np.sqrt(2 * 3)
    expected = {
        "wte": 0.02,
        "wpe": 0.01,
        "h/attn/c_attn/kernel": 0.02,
        "h/attn/c_proj/kernel": residual,
        "h/mlp/c_fc/kernel": 0.02,
        "h/mlp/c_proj/kernel": residual,
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(entry.key for entry in path)
        if name in expected:
            array = np.asarray(leaf, np.float64)
            # The estimate's own deviation is below one per cent.
            assert array.std() == pytest.approx(expected.pop(name), rel=0.04), name
            assert abs(array.mean()) < 0.04 * array.std(), name
            if name.startswith("h/"):
                assert not np.array_equal(array[0], array[1]), name
        else:
            assert name.endswith(("bias", "scale")), name
            assert (np.asarray(leaf) == name.endswith("scale")).all(), name
    assert not expected


def test_an_untied_head_and_another_mlp_count_as_they_are():
    config = ModelConfig(2, 4, 32, 16, vocab_size=61, vocab_multiple=1)
    wide = dataclasses.replace(config, mlp_dim=100, tie_embeddings=False)
    mlp = 2 * 2 * 32 * 100 + 2 * (100 + 32) - (2 * 2 * 32 * 128 + 2 * (128 + 32))
    assert num_params(wide) == num_params(config) + 61 * 32 + mlp
    assert num_params(wide) == sum(leaf.size for leaf in jax.tree.leaves(abstract_params(wide)))
    # The lookup of an untied table computes nothing, its head as much as a tied one.
    assert flops_per_token(wide) == flops_per_token(config) + 6 * mlp
