"""Muon and Adafactor treat each matrix as if it stood alone, and each parameter by its name."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import unflatten_dict
from optax.contrib import scale_by_muon

from gpt2_jax.config import ModelConfig, from_dict
from gpt2_jax.model.build import abstract_params
from gpt2_jax.training.matrices import matrix_axes
from gpt2_jax.training.muon import muon_groups
from gpt2_jax.training.optimizer import RULES, make_optimizer, updates_made
from tests.training.updates import KERNELS, MODEL, drawn, named, shapes_of


def matrices(name, leaf):
    """The matrices [I, O] of a kernel, as NumPy would cut them out by hand."""
    layers = np.asarray(leaf)
    if name.endswith("c_attn/kernel"):
        return [layer[:, i].reshape(len(layer), -1) for layer in layers for i in range(3)]
    return [layer.reshape(-1, layer.shape[-1]) for layer in layers]


def pruned(tree, names):
    """The part of a tree of parameters that has these leaves, which compiles faster."""
    leaves = {name: leaf for name, leaf in named(tree).items() if name in names}
    return unflatten_dict(leaves, sep="/")


jitted = functools.cache(jax.jit)


def updates_of(rule, params, gradients):
    """The updates of a rule for several gradients, one after the other."""
    state, update, results = rule.init(params), jitted(rule.update), []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        results.append(updates)
    return results


def test_every_parameter_goes_to_its_group():
    model = dataclasses.replace(MODEL, tie_embeddings=False)
    groups = named(muon_groups(abstract_params(model)))
    assert {name for name, group in groups.items() if group == "muon"} == KERNELS
    others = {name for name, group in groups.items() if group == "adam"}
    assert others | KERNELS == groups.keys() and {"wte", "wpe", "lm_head"} < others


def test_a_kernel_that_nobody_knows_is_refused():
    path = tuple(jax.tree_util.DictKey(name) for name in ("h", "attn", "c_new", "kernel"))
    with pytest.raises(ValueError, match="h/attn/c_new/kernel"):
        matrix_axes(path)


_ALL = frozenset(named(shapes_of(MODEL)))
_SOME = {"wte", "h/attn/c_attn/kernel", "h/attn/c_attn/bias", "h/mlp/c_fc/kernel"}


@pytest.mark.parametrize(
    ("scale", "names"),
    [
        ("aspect", _SOME),
        *(pytest.param(scale, _ALL, marks=pytest.mark.slow) for scale in ("adam", "aspect")),
    ],
    ids=lambda value: value if isinstance(value, str) else len(value),
)
def test_muon_is_a_plain_one_on_each_matrix_and_adam_on_the_rest(scale, names):
    config = from_dict({"optimizer": {"name": "muon", "muon_scale": scale, "muon_momentum": 0.9}})
    params, *gradients = (pruned(drawn(seed), names) for seed in range(3))
    ours = updates_of(RULES["muon"](config.optimizer), params, gradients)
    adam = updates_of(optax.scale_by_adam(0.9, 0.95, 1e-8), params, gradients)
    for step, updates in enumerate(ours):
        for name, leaf in named(updates).items():
            if name not in KERNELS:
                np.testing.assert_allclose(leaf, named(adam[step])[name], rtol=1e-6)
    muon = scale_by_muon(beta=0.9)
    for name in KERNELS & names:
        cut = [matrices(name, named(gradient)[name]) for gradient in gradients]
        for i, matrix in enumerate(cut[0]):
            pieces = [jnp.asarray(each[i]) for each in cut]
            plain = updates_of(muon, jnp.zeros_like(matrix), pieces)
            fan_in, fan_out = matrix.shape
            factor = {
                "adam": 0.2 * max(fan_in, fan_out) ** 0.5,
                "aspect": max(1, fan_out / fan_in) ** 0.5,
            }[scale]
            for updates, expected in zip(ours, plain, strict=True):
                update = matrices(name, named(updates)[name])[i]
                np.testing.assert_allclose(update, factor * expected, rtol=1e-4, atol=1e-5)
                singular = np.linalg.svd(update / factor, compute_uv=False)
                assert singular.max() < 1.3 and np.median(singular) > 0.6


@pytest.mark.parametrize(
    "names", [_SOME, pytest.param(_ALL, marks=pytest.mark.slow)], ids=lambda names: len(names)
)
def test_adafactor_is_that_of_optax_on_each_matrix_and_each_layer(names):
    model = ModelConfig(2, 2, 128, 16, vocab_size=130, vocab_multiple=2)  # wide enough to factor
    config = from_dict({"optimizer": {"name": "adafactor"}})
    params, *gradients = (
        pruned(drawn(seed, model, scale), names) for seed, scale in enumerate((0.1, 1.0, 0.5))
    )
    rule = RULES["adafactor"](config.optimizer)
    ours = updates_of(rule, params, gradients)
    # Each of the matrices has one number for a row and one for a column.
    state = [leaf.size for leaf in jax.tree.leaves(rule.init(params))]
    assert sum(state) < 0.2 * sum(leaf.size for leaf in jax.tree.leaves(params))
    theirs = optax.adafactor(learning_rate=1.0)  # its updates are negative

    def pieces(name, leaf):
        if name in KERNELS:
            return matrices(name, leaf)
        return list(np.asarray(leaf)) if name.startswith("h/") else [np.asarray(leaf)]

    for name, param in named(params).items():
        cut = [pieces(name, named(gradient)[name]) for gradient in gradients]
        for i, piece in enumerate(pieces(name, param)):
            plain = updates_of(theirs, jnp.asarray(piece), [jnp.asarray(c[i]) for c in cut])
            for updates, expected in zip(ours, plain, strict=True):
                update = pieces(name, named(updates)[name])[i]
                np.testing.assert_allclose(update, -expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_decay_goes_by_name_and_one_count_says_where_the_schedule_stands(name):
    results = []
    params, gradient = (pruned(drawn(seed), _SOME | {"wpe", "h/ln_1/scale"}) for seed in range(2))
    for decay in (0.0, 0.5):
        config = from_dict({"optimizer": {"name": name, "weight_decay": decay}})
        optimizer = make_optimizer(config)
        state = optimizer.init(params)
        updates, state = jax.jit(optimizer.update)(
            gradient, state, params, learning_rate=jnp.float32(0.1)
        )
        assert int(updates_made(state)) == 1
        results.append(named(updates))
    for path, leaf in named(params).items():
        decayed = 0.05 * leaf if path in {*KERNELS, "wte", "wpe"} else jnp.zeros_like(leaf)
        np.testing.assert_allclose(results[0][path] - results[1][path], decayed, atol=1e-6)
