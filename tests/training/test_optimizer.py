from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpt2_jax.config import ModelConfig, ScheduleConfig, from_dict
from gpt2_jax.config.sections import OPTIMIZERS, SCHEDULES
from gpt2_jax.model.build import abstract_params
from gpt2_jax.training.optimizer import (
    DECAYS,
    RULES,
    decay_mask,
    make_optimizer,
    make_schedule,
    updates_made,
)


def formula(name, n, peak, end, warmup, total, fraction=0.2):
    if n < warmup:
        return peak * (n + 1) / (warmup + 1)
    name, _, shape = name.partition(" ")
    start = total - round(fraction * total) if name == "wsd" else warmup
    progress = min(max((n - start) / (total - start), 0), 1)
    left = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "constant": 1,
        "wsd": 1 - (math.sqrt(progress) if shape == "sqrt" else progress),
    }[name]
    return end + (peak - end) * left


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "wsd linear", "wsd sqrt"])
@pytest.mark.parametrize("warmup", [0, 7])
def test_the_whole_schedule_is_the_formula(name, warmup):
    peak, end, total = 3e-3, 2e-4, 40
    config = ScheduleConfig(name.split()[0], peak, end, warmup, decay_shape=name.split()[-1])
    schedule = make_schedule(config, total)
    steps = range(total + 20)
    rates = np.asarray(schedule(np.arange(total + 20)))
    expected = [formula(name, n, peak, end, warmup, total) for n in steps]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert rates[0] == pytest.approx(peak / (warmup + 1)) and rates[0] > 0
    assert rates.argmax() == (warmup if name != "constant" else rates.argmax())
    assert rates[warmup] == pytest.approx(peak)
    last = peak if name == "constant" else end
    assert rates[total:] == pytest.approx(last)


@pytest.mark.parametrize(("fraction", "start"), [(0.0, 39), (0.25, 30), (0.99, 7), (1.0, 7)])
def test_the_decay_of_wsd_begins_after_the_warmup_and_takes_at_least_one_update(fraction, start):
    schedule = make_schedule(ScheduleConfig("wsd", 1.0, 0.0, 7, decay_fraction=fraction), 40)
    rates = np.asarray(schedule(np.arange(41)))
    assert (rates[7 : start + 1] == 1).all() and (np.diff(rates[start:]) < 0).all()
    np.testing.assert_allclose(rates[start:], np.linspace(1, 0, 41 - start), atol=1e-6)


def test_a_run_that_is_all_warmup_still_rises_to_the_peak():
    schedule = make_schedule(ScheduleConfig("cosine", 1.0, 0.1, 5), 5)
    np.testing.assert_allclose(schedule(np.arange(6)), [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])


def test_matrices_and_embeddings_decay_and_nothing_else():
    config = ModelConfig(2, 4, 32, 16, vocab_size=61, vocab_multiple=8)
    leaves = jax.tree_util.tree_leaves_with_path(decay_mask(abstract_params(config)))
    decayed = {"/".join(e.key for e in path if hasattr(e, "key")) for path, on in leaves if on}
    assert decayed == {
        "wte",
        "wpe",
        "h/attn/c_attn/kernel",
        "h/attn/c_proj/kernel",
        "h/mlp/c_fc/kernel",
        "h/mlp/c_proj/kernel",
    }
    assert len(leaves) == 16


def test_three_updates_are_adamw_written_by_hand():
    config = from_dict(
        {
            "optimizer": {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-6, "weight_decay": 0.3},
            "schedule": {"learning_rate": 0.1, "min_learning_rate": 0.01, "warmup_steps": 1},
            "train": {"total_steps": 3, "batch_size": 8},
        }
    )
    rng = np.random.default_rng(0)
    shapes = {"wte": (5, 4), "h": {"c_fc": {"kernel": (2, 4, 4), "bias": (2, 4)}}}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    draw = lambda shape: rng.normal(size=shape)  # noqa: E731
    params = jax.tree.map(draw, shapes, is_leaf=is_shape)
    # The last gradient is below the clipping norm of 1, the others above.
    gradients = [
        jax.tree.map(lambda s, size=size: draw(s) * size, shapes, is_leaf=is_shape)
        for size in (1.0, 0.5, 0.01)
    ]
    optimizer = make_optimizer(config)
    ours = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(ours)

    schedule = make_schedule(config.schedule, config.train.total_steps)

    @jax.jit
    def update(params, state, grads):
        rate = schedule(updates_made(state))
        updates, state = optimizer.update(grads, state, params, learning_rate=rate)
        return optax.apply_updates(params, updates), state

    norms = []
    moments = jax.tree.map(lambda p: (np.zeros_like(p), np.zeros_like(p)), params)
    for n, grads in enumerate(gradients):
        assert updates_made(state) == n
        ours, state = update(ours, state, jax.tree.map(jnp.asarray, grads))
        norms.append(math.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads))))
        rate = formula("cosine", n, 0.1, 0.01, 1, 3)

        def by_hand(path, p, g, moment, n=n, rate=rate, norm=norms[-1]):
            m, v = moment
            g = g / max(norm, 1.0)
            m[...] = 0.8 * m + 0.2 * g
            v[...] = 0.9 * v + 0.1 * g**2
            step = (m / (1 - 0.8 ** (n + 1))) / (np.sqrt(v / (1 - 0.9 ** (n + 1))) + 1e-6)
            decay = 0.3 * p if path[-1].key != "bias" else 0
            return p - rate * (step + decay)

        params = jax.tree_util.tree_map_with_path(by_hand, params, grads, moments)
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert norms[1] > 1 > norms[2]
    assert updates_made(state) == 3


def test_every_name_that_the_config_allows_has_its_rule():
    assert RULES.keys() == set(OPTIMIZERS)
    assert DECAYS.keys() == set(SCHEDULES)


@pytest.mark.parametrize("name", ["adamw", "lion"])  # test_matrices.py has the others
def test_updates_and_state_are_those_of_optax(name):
    sections = {
        "optimizer": {
            "name": name,
            "beta1": 0.8,
            "beta2": 0.9,
            "epsilon": 1e-6,
            "weight_decay": 0.3,
            "grad_clip": 1.0,
        },
        "schedule": {"learning_rate": 0.1, "min_learning_rate": 0.01, "warmup_steps": 1},
        "train": {"total_steps": 4, "batch_size": 8},
    }
    config = from_dict(sections)
    schedule = make_schedule(config.schedule, 4)
    theirs = {
        "adamw": optax.adamw(schedule, 0.8, 0.9, 1e-6, weight_decay=0.3, mask=decay_mask),
        "lion": optax.lion(schedule, 0.8, 0.9, weight_decay=0.3, mask=decay_mask),
    }[name]
    theirs = optax.with_extra_args_support(optax.chain(optax.clip_by_global_norm(1.0), theirs))
    optimizers = (make_optimizer(config), theirs)
    params = {"wte": jnp.linspace(-1, 1, 6).reshape(2, 3), "bias": jnp.ones(3)}
    results = []
    for optimizer in optimizers:
        values, state = params, optimizer.init(params)
        for size in (3.0, 0.1, -1.0):
            gradients = jax.tree.map(lambda leaf, size=size: size * jnp.cos(7 * leaf), params)
            rate = schedule(updates_made(state))  # optax's own optimizer ignores it
            updates, state = optimizer.update(gradients, state, values, learning_rate=rate)
            values = optax.apply_updates(values, updates)
        results.append((values, state))
    # The structure of the state, too, since checkpoints depend on it.
    assert jax.tree.structure(results[0][1]) == jax.tree.structure(results[1][1])
    assert jax.tree.all(jax.tree.map(np.array_equal, *results))
    assert updates_made(results[0][1]) == 3


@pytest.mark.parametrize(("clip", "passed_on"), [(0.0, 5.0), (10.0, 5.0), (2.0, 2.0)])
def test_the_gradient_is_clipped_by_its_global_norm(clip, passed_on):
    config = from_dict({"optimizer": {"grad_clip": clip, "beta1": 0.0}})
    optimizer = make_optimizer(config)
    params = {"wte": jnp.zeros(1), "bias": jnp.zeros(1)}
    grads = {"wte": jnp.asarray([3.0]), "bias": jnp.asarray([-4.0])}
    _, state = optimizer.update(grads, optimizer.init(params), params, learning_rate=jnp.ones(()))
    mu = optax.tree.get(state, "mu")
    assert optax.tree.norm(mu) == pytest.approx(passed_on, rel=1e-6)
    assert mu["wte"] / mu["bias"] == pytest.approx(-0.75)
