from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.data.batch import Batch
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.guard import LossWindow, empty_window
from gpt2_jax.training.optimizer import make_optimizer, updates_made
from gpt2_jax.training.state import abstract_state, init_state
from gpt2_jax.training.step import batch_sharding, compile_train_step, step_numbers

B, T, V = 8, 16, 61


# Compiling takes most of the time here, so two programs serve most tests.
FULLER = {"accumulation": 4, "spike_threshold": 5.0}
plain_and_fuller = pytest.mark.parametrize("changes", [{}, FULLER])


def make_config(accumulation=1, dropout=0.0, learning_rate=1e-3, spike_threshold=0.0):
    return from_dict(
        {
            "model": {
                "num_layers": 2,
                "num_heads": 4,
                "d_model": 32,
                "context_length": T,
                "vocab_size": V,
                "vocab_multiple": 8,
                "dropout": dropout,
            },
            "compute": {"dtype": "float32", "loss_chunk": 0},
            # A much smaller epsilon would make the first update the signs of the gradients, which
            # rounding decides.
            "optimizer": {"epsilon": 1e-4, "grad_clip": 0.01},
            "schedule": {
                "learning_rate": learning_rate,
                "min_learning_rate": 0.0,
                "warmup_steps": 0,
            },
            "train": {
                "batch_size": B,
                "accumulation_steps": accumulation,
                "total_steps": 100,
                "spike_threshold": spike_threshold,
                "spike_window": 8,
                "max_spikes": 2,
            },
        }
    )


@functools.cache
def first_state():
    config = make_config()
    optimizer, mesh = make_optimizer(config), make_mesh(config.mesh, jax.devices()[:1])
    state = init_state(config, optimizer, abstract_state(config, optimizer, mesh, Rules()))
    return jax.device_get(state)


@functools.cache
def setting(**changes):
    """Returns (mesh, a function that places a state, by default the first, the compiled step)."""
    config = make_config(**changes)
    optimizer, rules = make_optimizer(config), Rules()
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    abstract = abstract_state(config, optimizer, mesh, rules)
    compiled = compile_train_step(config, optimizer, mesh, rules, abstract, weighted=True)
    numbers = step_numbers(config, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    first = first_state()._replace(loss_window=jax.device_get(empty_window(config.train)))

    def start(state=None):
        return jax.device_put(state or first, shardings)

    return mesh, start, lambda state, batch: compiled(state, batch, numbers)


def make_batch(mesh, weights=None, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, V, (B, T + 1)).astype(np.int32)
    weights = np.ones((B, T)) if weights is None else weights
    batch = Batch(ids.astype(np.uint16), weights.astype(np.float32))
    return jax.device_put(batch, batch_sharding(mesh))


def unequal_weights():
    """Fractional, a third of them zero, two rows without any, very unequal from row to row."""
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.1, 2, (B, T)) * (rng.random((B, T)) > 0.33)
    return weights * np.array([0.05, 3, 0, 1, 1, 0.5, 0, 2])[:, None]


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def identical(one, other):
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def test_microbatches_with_unequal_masks_equal_one_batch():
    results = []
    for changes in ({}, FULLER):
        mesh, start, step = setting(**changes)
        results.append(step(start(), make_batch(mesh, unequal_weights())))
    (one, metrics), (four, other_metrics) = results
    assert other_metrics["loss"] == pytest.approx(float(metrics["loss"]), rel=1e-6)
    assert other_metrics["grad_norm"] == pytest.approx(float(metrics["grad_norm"]), rel=1e-5)
    errors = [
        np.abs(a - b).max() for a, b in zip(leaves(one.params), leaves(four.params), strict=True)
    ]
    print(f"accumulated against whole, parameters: {max(errors):.1e}")
    assert max(errors) < 1e-6
    for state in (one, four):
        # The first moment is (1 - beta1) times the gradient that AdamW saw. Clipped microbatch by
        # microbatch, their sum would be shorter than the bound.
        assert optax.tree.norm(optax.tree.get(state.opt_state, "mu")) / 0.1 == pytest.approx(
            0.01, rel=1e-4
        )
    assert metrics["grad_norm"] > 0.1


def test_loss_is_the_weighted_mean_whatever_the_scale_of_the_weights():
    mesh, start, step = setting()
    weights = unequal_weights()
    state, metrics = step(start(), make_batch(mesh, weights))
    scaled_state, scaled = step(start(), make_batch(mesh, weights / 1024))
    assert (weights / 1024).sum() < 1
    assert scaled["loss"] == pytest.approx(float(metrics["loss"]), rel=1e-5)
    for a, b in zip(leaves(state.params), leaves(scaled_state.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_batch_without_targets_has_no_loss_and_no_gradient():
    mesh, start, step = setting()
    _, metrics = step(start(), make_batch(mesh, np.zeros((B, T))))
    assert metrics["loss"] == 0 and metrics["grad_norm"] == 0 and metrics["bad_steps"] == 0


@plain_and_fuller
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(changes):
    mesh, start, step = setting(**changes)
    good, _ = step(start(), make_batch(mesh))
    good = jax.device_get(good)
    broken = good._replace(params=good.params | {"wpe": np.full_like(good.params["wpe"], np.nan)})
    state = start(broken)
    for bad_steps in (1, 2, 3):
        state, metrics = step(state, make_batch(mesh, seed=bad_steps))
        assert not math.isfinite(metrics["loss"])
        assert int(metrics["bad_steps"]) == int(state.bad_steps) == bad_steps
        assert int(state.step) == 1 + bad_steps
        assert identical(state.params, broken.params)
        assert identical(state.opt_state, broken.opt_state)
        assert int(updates_made(state.opt_state)) == 1
    state = start(jax.device_get(state)._replace(params=good.params))
    state, metrics = step(state, make_batch(mesh))
    assert math.isfinite(metrics["loss"]) and int(state.bad_steps) == 0
    assert int(state.step) == 5 and int(updates_made(state.opt_state)) == 2
    assert not identical(state.params, good.params)


@plain_and_fuller
def test_a_run_goes_on_after_a_bad_step_as_if_it_had_never_been(changes):
    mesh, start, step = setting(**changes)
    one_row = np.ones((B, T))
    one_row[5] = np.inf  # of one microbatch
    states = []
    for between in ([], [one_row]):
        state, _ = step(start(), make_batch(mesh, seed=1))
        for weights in between:
            state, metrics = step(state, make_batch(mesh, weights, seed=2))
            assert int(metrics["bad_steps"]) == 1
        states.append(step(state, make_batch(mesh, seed=3))[0])
    without, with_bad = states
    assert int(with_bad.step) == int(without.step) + 1
    assert identical(with_bad._replace(step=without.step), without)


def test_one_gradient_that_is_not_finite_skips_the_update_of_all():
    mesh, start, step = setting()
    first = start()
    # A row that no token reads: the loss stays finite.
    weights = np.ones((B, T))
    weights[0, 0] = np.inf
    state, metrics = step(start(), make_batch(mesh, weights))
    assert int(state.bad_steps) == 1 and not math.isfinite(metrics["grad_norm"])
    assert identical(state.params, first.params)


def test_a_loss_that_spikes_changes_nothing_but_the_counts():
    mesh, start, step = setting(**FULLER)
    usual = np.linspace(0.9, 1.1, 8, dtype=np.float32)
    window = LossWindow(usual, np.int32(19), np.int32(0))
    first = first_state()._replace(loss_window=window)
    state = start(first)
    for spikes in (1, 2):
        state, metrics = step(state, make_batch(mesh, seed=spikes))
        assert metrics["loss"] > metrics["loss_limit"] > 1.1
        assert identical(
            state, first._replace(step=spikes, loss_window=window._replace(spikes=spikes))
        )
    state, metrics = step(state, make_batch(mesh))
    assert metrics["loss_limit"] == math.inf
    assert int(updates_made(state.opt_state)) == 1 and not identical(state.params, first.params)
    usual[19 % 8] = metrics["loss"]
    assert identical(state.loss_window, LossWindow(usual, 20, 3))


def test_the_learning_rate_follows_the_updates_not_the_steps():
    mesh, start, step = setting()
    first = jax.device_get(start())
    nan = first._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, first.params))
    state, _ = step(start(nan), make_batch(mesh))
    _, metrics = step(start(jax.device_get(state)._replace(params=first.params)), make_batch(mesh))
    assert metrics["learning_rate"] == pytest.approx(1e-3)


def test_norms_by_layer_combine_to_the_whole():
    mesh, start, step = setting()
    state = start()
    names = {
        "/".join(entry.key for entry in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(state.params)
    }
    _, metrics = step(state, make_batch(mesh))
    norms = metrics["grad_norms"]
    assert norms.keys() == names
    assert {name for name, norm in norms.items() if norm.shape == (2,)} == {
        name for name in names if name.startswith("h/")
    }
    total = math.sqrt(sum(float(jnp.sum(jnp.square(norm))) for norm in norms.values()))
    assert total == pytest.approx(float(metrics["grad_norm"]), rel=1e-6)


def test_the_old_state_is_donated():
    mesh, start, step = setting()
    state = start()
    step(state, make_batch(mesh))
    kept = [
        leaf.shape
        for leaf in jax.tree.leaves((state.params, state.opt_state))
        if leaf.ndim and not leaf.is_deleted()
    ]
    assert kept == []


def test_dropout_is_a_function_of_seed_and_step():
    mesh, start, step = setting(dropout=0.2, learning_rate=0.0)
    batch = make_batch(mesh)
    first, metrics = step(start(), batch)
    again = step(start(), batch)[1]
    assert identical(metrics, again)
    second = step(first, batch)[1]  # at a learning rate of zero the parameters are the same
    assert float(second["loss"]) != float(metrics["loss"])
