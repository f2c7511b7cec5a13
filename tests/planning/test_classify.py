from __future__ import annotations

import dataclasses

import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.parallel.mesh import abstract_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.planning.classify import classify_transfer
from gpt2_jax.planning.hlo import Array
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state

# Four sequences of 256 tokens a device; heads in all 512 wide, MLPs 2048, 1024 padded rows.
_CONFIG = from_dict(
    {
        "model": {
            "num_layers": 3,
            "num_heads": 4,
            "d_model": 512,
            "context_length": 256,
            "vocab_size": 1000,
        },
        "compute": {"loss_chunk": 64},
        "mesh": {"data": 2, "fsdp": 4, "tensor": 2},
        "train": {"batch_size": 64, "accumulation_steps": 2},
    }
)


def abstract_params(config):
    mesh = abstract_mesh(config.mesh, 16)
    return abstract_state(config, make_optimizer(config), mesh, Rules()).params


@pytest.fixture(scope="module")
def params():
    return abstract_params(_CONFIG)


@pytest.mark.parametrize(
    ("dims", "of"),
    [
        ((512,), "scalars"),  # a bias
        ((2048, 8), "scalars"),
        ((512, 2048), "weights"),  # of one layer, whole
        ((3, 512, 2048), "weights"),  # of all layers
        ((2048, 512), "weights"),  # a layout of XLA's
        ((512, 1024), "weights"),  # a part, cut by tensor
        ((4, 128, 2048), "weights"),  # one axis in its four parts
        ((1024, 512), "weights"),  # the table of tokens, though 4 x 256 tokens are as many
        ((1048, 512), "weights"),  # padded
        ((512, 1536), "weights"),  # queries, keys and values as one axis
        ((4, 256, 512), "activations"),
        ((4, 256, 2048), "activations"),
        ((1024, 2048), "activations"),  # sequences and tokens as one axis
        ((4, 64, 1024), "activations"),  # logits of a chunk
    ],
)
def test_shapes_tell_parameters_from_activations(dims, of, params):
    names = {"all-gather": "parameters", "reduce-scatter": "gradients", "all-reduce": "gradients"}
    for kind, weights in names.items():
        found = classify_transfer(_CONFIG, params, kind, [Array("f32", (8,)), Array("bf16", dims)])
        assert found == (weights if of == "weights" else of)


def test_merged_axes_of_a_weight_are_no_activation_though_the_model_is_as_wide_as_its_context():
    model = dataclasses.replace(_CONFIG.model, num_heads=2, d_model=256)
    config = dataclasses.replace(_CONFIG, model=model)
    wide = abstract_params(config)
    of = lambda kind, *dims: classify_transfer(config, wide, kind, [Array("bf16", dims)])  # noqa: E731
    # c_attn [3, 256, 3, 2, 128] in two dimensions, whole, cut by tensor, and cut by FSDP.
    for dims in ((256, 768), (3, 256, 768), (256, 384), (4, 64, 768), (3, 4, 64, 768)):
        assert of("reduce-scatter", *dims) == "gradients", dims
        assert of("all-gather", *dims) == "parameters", dims
    assert of("all-reduce", 4, 256, 768) == "activations"
    assert of("all-reduce", 4, 256, 256) == "activations"
