from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import pytest

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.model import gpt2
from gpt2_jax.model.build import abstract_params, boxed_params, build_decoder, build_model

_MODEL = ModelConfig(2, 4, 32, 16, vocab_size=61, vocab_multiple=8, dropout=0.1)
_COMPUTE = ComputeConfig(attention="auto", remat="full", scan_unroll=2)


def test_modules_of_equal_configs_are_equal_so_that_jit_traces_once():
    other = dataclasses.replace(_MODEL)
    assert build_model(_MODEL, _COMPUTE) == build_model(other, _COMPUTE)
    assert hash(build_model(_MODEL, _COMPUTE)) == hash(build_model(other, _COMPUTE))
    for changed in ({"scanned": False}, {"train": True}):
        assert build_model(_MODEL, _COMPUTE, **changed) != build_model(_MODEL, _COMPUTE)


@pytest.mark.parametrize("scanned", [False, True])
def test_a_decoder_drops_nothing_and_uses_no_fused_kernel(scanned):
    decoder = build_decoder(_MODEL, _COMPUTE, scanned=scanned)
    assert decoder.scanned == scanned and not decoder.train
    assert decoder.config == dataclasses.replace(_MODEL, dropout=0.0)
    assert decoder.compute == dataclasses.replace(_COMPUTE, attention="reference", scan_unroll=1)


def test_abstract_parameters_are_those_that_are_made_on_one_device():
    params = abstract_params(_MODEL)
    made = jax.eval_shape(lambda key: nn.unbox(boxed_params(_MODEL, key)), jax.random.key(0))
    assert jax.tree.structure(params) == jax.tree.structure(made)
    for abstract, leaf in zip(jax.tree.leaves(params), jax.tree.leaves(made), strict=True):
        assert (abstract.shape, abstract.dtype) == (leaf.shape, leaf.dtype)
        assert abstract.dtype == "float32"
        assert abstract.sharding.device_set == {jax.local_devices()[0]}


def test_every_axis_of_a_boxed_parameter_has_a_place_in_its_names():
    boxed = jax.eval_shape(lambda key: boxed_params(_MODEL, key), jax.random.key(0))
    leaves = jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
    assert all(isinstance(leaf, nn.LogicallyPartitioned) for leaf in leaves)
    assert all(len(leaf.names) == leaf.value.ndim for leaf in leaves)
    assert [leaf.names[0] for leaf in jax.tree.leaves(
        boxed["h"], is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    )] == ["layers"] * 12  # fmt: skip


@pytest.mark.slow
def test_initialization_asks_for_no_fused_kernel(monkeypatch):
    asked = []

    def choose(model, compute):
        asked.append(compute.attention)
        return "reference"

    monkeypatch.setattr(gpt2, "choose", choose)
    boxed_params(_MODEL, jax.random.key(0))
    assert set(asked) <= {"reference"}
