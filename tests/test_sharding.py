"""One run on one device and on eight: the same losses, and each device holds its part."""

from __future__ import annotations

import collections
import dataclasses
import functools

import jax
import numpy as np
import pytest

from gpt2_jax.config import MeshConfig, from_dict
from gpt2_jax.data.loader import TrainLoader, device_batches
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.model.build import build_model
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state, init_state
from gpt2_jax.training.step import batch_sharding, compile_train_step, step_numbers

T, STEPS = 16, 20
_CONFIG = from_dict(
    {
        "model": {
            "num_layers": 2,
            "num_heads": 4,
            "d_model": 128,
            "context_length": T,
            "vocab_size": 61,
            "vocab_multiple": 8,
        },
        "compute": {"dtype": "float32", "loss_chunk": 0},
        "schedule": {"learning_rate": 3e-3, "min_learning_rate": 0.0, "warmup_steps": 3},
        "train": {"batch_size": 8, "total_steps": STEPS},
    }
)
_MESHES = [
    (2, 2, 2),
    *(pytest.param(axes, marks=pytest.mark.slow) for axes in ((8, 1, 1), (1, 8, 1), (1, 2, 4))),
]


def _with_optimizer(name):
    ema = 0.0 if name == "adamw" else 0.9
    optimizer = dataclasses.replace(_CONFIG.optimizer, name=name, ema_decay=ema)
    return dataclasses.replace(_CONFIG, optimizer=optimizer)


@functools.cache
def first_state(optimizer="adamw", position="learned"):
    config = _with_optimizer(optimizer)
    model = dataclasses.replace(config.model, position=position)
    config = dataclasses.replace(config, model=model)
    optimizer = make_optimizer(config)
    one = make_mesh(config.mesh, jax.devices()[:1])
    state = init_state(config, optimizer, abstract_state(config, optimizer, one, Rules()))
    return jax.device_get(state)


@functools.cache
def train(axes, dropout=0.0, precision=None, optimizer="adamw", steps=STEPS, position="learned"):
    """(losses, the last state) of a run on a mesh of these axes."""
    model = dataclasses.replace(_CONFIG.model, dropout=dropout, position=position)
    compute = dataclasses.replace(_CONFIG.compute, precision=precision)
    config = dataclasses.replace(
        _with_optimizer(optimizer), model=model, compute=compute, mesh=MeshConfig(*axes)
    )
    first = first_state(optimizer, position)
    mesh, rules = make_mesh(config.mesh, jax.devices()[: int(np.prod(axes))]), Rules()
    optimizer = make_optimizer(config)
    abstract = abstract_state(config, optimizer, mesh, rules)
    step = compile_train_step(config, optimizer, mesh, rules, abstract)
    numbers = step_numbers(config, mesh)
    # That a seed gives the same parameters on every mesh is tests/training/test_state.py's to show.
    state = jax.device_put(first, jax.tree.map(lambda leaf: leaf.sharding, abstract))
    # Tokens with something to learn: each follows from the one before, but for noise.
    rng = np.random.default_rng(0)
    tokens = np.cumsum(rng.choice([1, 1, 1, 7], 4000)) % 61
    source = TrainLoader(
        TokenArray([tokens.astype(np.uint16)]), batch_size=8, context_length=T, seed=0
    )
    losses = []
    for batch in device_batches(source, batch_sharding(mesh), stop_step=steps):
        state, metrics = step(state, batch, numbers)
        losses.append(float(metrics["loss"]))
    return np.array(losses), state


@pytest.mark.slow
def test_rounded_factors_can_be_multiplied_where_heads_are_divided():
    exact, _ = train((1, 1, 1))
    losses, _ = train((2, 2, 2), precision="bfloat16")
    error = np.abs(losses / exact - 1)
    assert error.max() > 1e-6 and error[:5].max() < 0.01


@pytest.mark.parametrize("axes", _MESHES)
def test_eight_devices_have_the_losses_of_one_and_hold_their_part(axes):
    expected, _ = train((1, 1, 1))
    losses, state = train(axes)
    assert expected[-1] < 0.8 * expected[0]
    error = np.abs(losses / expected - 1).max()
    print(f"mesh {axes} against one device over {STEPS} steps: {error:.1e} relative")
    assert error < 1e-5
    arrays = jax.tree.leaves((state.params, state.opt_state))
    held = collections.Counter()
    for array in arrays:
        for shard in array.addressable_shards:
            held[shard.device] += shard.data.nbytes
    share = sum(array.nbytes for array in arrays) / (axes[1] * axes[2])
    print(f"mesh {axes}: {max(held.values()) / share:.3f} of a device's share")
    # Biases and norms are whole on every device.
    assert len(held) == 8 and max(held.values()) <= 1.1 * share


@pytest.mark.slow
@pytest.mark.parametrize("axes", _MESHES)
@pytest.mark.parametrize("name", ["muon", "lion", "adafactor"])
def test_other_optimizers_and_the_average_are_the_same_on_eight_devices(name, axes):
    steps = 4
    expected, one = train((1, 1, 1), optimizer=name, steps=steps)
    losses, eight = train(axes, optimizer=name, steps=steps)
    error = np.abs(losses / expected - 1).max()
    print(f"{name}, mesh {axes} against one device over {steps} steps: {error:.1e} relative")
    assert error < 1e-4
    specs = [leaf.sharding.spec for leaf in jax.tree.leaves(eight.params)]
    assert [leaf.sharding.spec for leaf in jax.tree.leaves(eight.ema)] == specs
    for ours, theirs in zip(jax.tree.leaves(one.ema), jax.tree.leaves(eight.ema), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4 if name != "lion" else 2e-2)
    size = lambda arrays: sum(a.addressable_shards[0].data.nbytes for a in arrays)  # noqa: E731
    # No more than two moments, sharded like the parameters, or what is small beside them.
    assert size(jax.tree.leaves(eight.opt_state)) <= 2.1 * size(jax.tree.leaves(eight.params))


@pytest.mark.slow
def test_a_table_of_distances_is_trained_the_same_on_eight_devices():
    (expected, one), (losses, eight) = (
        train(axes, steps=4, position="relative") for axes in ((1, 1, 1), (2, 2, 2))
    )
    assert np.abs(losses / expected - 1).max() < 1e-5
    tables = [state.params["h"]["attn"]["relative"] for state in (one, eight)]
    before = first_state(position="relative").params["h"]["attn"]["relative"]
    moved = np.abs(np.asarray(tables[0]) - before)
    assert moved.max() > 1e-3
    assert np.abs(np.asarray(tables[0]) - np.asarray(tables[1])).max() < 0.02 * moved.max()
    assert eight.params["h"]["attn"]["relative"].addressable_shards[0].data.size * 4 == before.size


@pytest.mark.slow
def test_dropout_draws_the_same_masks_on_one_device_and_on_eight():
    config = dataclasses.replace(_CONFIG.model, dropout=0.5)
    tokens = np.zeros((8, T), np.int32)

    def run(axes):
        mesh = make_mesh(MeshConfig(*axes), jax.devices()[: int(np.prod(axes))])
        abstract = abstract_state(_CONFIG, make_optimizer(_CONFIG), mesh, Rules()).params
        params = jax.device_put(
            first_state().params, jax.tree.map(lambda leaf: leaf.sharding, abstract)
        )
        model = build_model(config, _CONFIG.compute, train=True)
        with sharding_context(mesh, Rules()):
            forward = jax.jit(lambda p, t, k: model.apply({"params": p}, t, rngs={"dropout": k})[0])
            batch = jax.device_put(tokens, batch_sharding(mesh))
            return np.asarray(forward(params, batch, jax.random.key(7)))

    one, eight = run((1, 1, 1)), run((2, 2, 2))
    assert np.abs(one[0] - one[1]).max() > 0.1  # rows of the same tokens, dropped differently
    assert np.abs(one - eight).max() < 1e-4


@pytest.mark.slow
def test_training_with_dropout_is_the_same_on_one_device_and_on_eight():
    (expected, _), (losses, _) = train((1, 1, 1), 0.1), train((2, 2, 2), 0.1)
    error = np.abs(losses / expected - 1).max()
    print(f"with dropout, eight devices against one over {STEPS} steps: {error:.1e} relative")
    assert error < 1e-5
    assert np.abs(train((1, 1, 1))[0] / expected - 1).max() > 1e-4
