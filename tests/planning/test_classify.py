from __future__ import annotations

import dataclasses
import functools

import pytest

from gpt2_jax.config import Config, MeshConfig, ModelConfig, TrainConfig, from_dict
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


def abstract_params(config, devices=16):
    mesh = abstract_mesh(config.mesh, devices)
    return abstract_state(config, make_optimizer(config), mesh, Rules()).params


def found(config, params, kind, *dims):
    return classify_transfer(config, params, kind, [Array("bf16", dims)])


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
        of_both = [Array("f32", (8,)), Array("bf16", dims)]
        assert classify_transfer(_CONFIG, params, kind, of_both) == (
            weights if of == "weights" else of
        )


def test_merged_axes_of_a_weight_are_no_activation_though_the_model_is_as_wide_as_its_context():
    model = dataclasses.replace(_CONFIG.model, num_heads=2, d_model=256)
    config = dataclasses.replace(_CONFIG, model=model)
    of = functools.partial(found, config, abstract_params(config))
    # c_attn [3, 256, 3, 2, 128] in two dimensions, whole, cut by tensor, and cut by FSDP.
    for dims in ((256, 768), (3, 256, 768), (256, 384), (4, 64, 768), (3, 4, 64, 768)):
        assert of("reduce-scatter", *dims) == "gradients", dims
        assert of("all-gather", *dims) == "parameters", dims
    assert of("all-reduce", 4, 256, 768) == "activations"
    assert of("all-reduce", 4, 256, 256) == "activations"


def test_parts_of_a_weight_are_no_activation_though_one_is_as_long_as_a_chunk_or_padded():
    # 1.5B on 4 x 64: XLA pads 1600 / 64 = 25 to 32, and 64 x 32 is as many as 2 x 1024 tokens.
    model = ModelConfig(48, 25, 1600, vocab_size=50257)
    xl = Config(model=model, mesh=MeshConfig(4, 64, 1), train=TrainConfig(batch_size=512))
    of = functools.partial(found, xl, abstract_params(xl, 256))
    assert of("reduce-scatter", 2048, 6400) == of("reduce-scatter", 64, 32, 6400) == "gradients"
    assert of("all-gather", 2048, 6400) == of("all-reduce", 2, 1024, 6400) == "activations"
    # 774M on 2 x 128: fsdp is as large as a chunk of the loss.
    model = ModelConfig(36, 20, 1280, vocab_size=50257)
    large = Config(model=model, mesh=MeshConfig(2, 128, 1), train=TrainConfig(batch_size=512))
    of = functools.partial(found, large, abstract_params(large, 256))
    assert of("all-gather", 128, 50304, 10) == of("all-gather", 128, 10, 5120) == "parameters"
    assert of("all-gather", 2, 128, 50304) == "activations"  # logits of a chunk
