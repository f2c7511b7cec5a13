from __future__ import annotations

import collections

import jax
import numpy as np
import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.errors import UserError
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state, bytes_per_device, init_state, without_params


def make(axes, spike_threshold=0.0, compute=None, **model):
    model = {
        "num_layers": 2,
        "num_heads": 4,
        "d_model": 32,
        "context_length": 16,
        "vocab_size": 61,
        "vocab_multiple": 8,
        **model,
    }
    mesh = dict(zip(("data", "fsdp", "tensor"), axes, strict=True))
    train = {"seed": 5, "spike_threshold": spike_threshold}
    sections = {"model": model, "compute": compute or {}, "mesh": mesh, "train": train}
    config = from_dict(sections)
    count = int(np.prod(axes))
    optimizer = make_optimizer(config)
    mesh = make_mesh(config.mesh, jax.devices()[:count])
    return config, optimizer, abstract_state(config, optimizer, mesh, Rules())


@pytest.mark.slow
def test_a_seed_gives_the_same_parameters_on_any_mesh():
    states = []
    for axes in ((1, 1, 1), (2, 2, 2)):
        config, optimizer, abstract = make(axes)
        state = init_state(config, optimizer, abstract)
        for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
            assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
            assert leaf.sharding.is_equivalent_to(expected.sharding, leaf.ndim)
        held = collections.Counter()
        for leaf in jax.tree.leaves(state):
            for shard in leaf.addressable_shards:
                held[shard.device] += shard.data.nbytes
        assert max(held.values()) == bytes_per_device(abstract)
        assert int(state.step) == int(state.bad_steps) == 0
        states.append(state)
    one, eight = (jax.tree.leaves(state.params) for state in states)
    for a, b in zip(one, eight, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_moments_are_sharded_like_their_parameters():
    _, _, abstract = make((2, 2, 2))
    specs = [leaf.sharding.spec for leaf in jax.tree.leaves(abstract.params)]
    arrays = [leaf for leaf in jax.tree.leaves(abstract.opt_state) if leaf.ndim]
    assert [leaf.sharding.spec for leaf in arrays] == specs * 2


def test_the_window_of_losses_is_replicated_and_exists_only_on_request():
    _, _, without = make((2, 2, 2))
    _, _, abstract = make((2, 2, 2), spike_threshold=6.0)
    assert abstract.loss_window.losses.shape == (128,)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(abstract.loss_window))
    assert jax.tree.leaves(abstract._replace(loss_window=None)) == jax.tree.leaves(without)
    assert without_params(without).keys() == {"step", "opt_state", "bad_steps"}
    assert without_params(abstract).keys() - without_params(without).keys() == {"loss_window"}


def test_a_model_the_mesh_does_not_divide_is_refused():
    with pytest.raises(UserError, match="does not divide"):
        make((1, 1, 8))


def test_parameters_are_float32_whatever_the_compute_dtype():
    _, _, abstract = make((1, 1, 1), compute={"dtype": "bfloat16"})
    assert {leaf.dtype.name for leaf in jax.tree.leaves(abstract.params)} == {"float32"}
