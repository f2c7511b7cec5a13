"""The tables of the model and the optimizer have exactly the names that the config allows."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import model as knobs
from gpt2_jax.config import sections
from gpt2_jax.model import norms, residual
from gpt2_jax.model.activations import ACTIVATIONS, GATES, make_activation
from gpt2_jax.model.positions import ENCODINGS
from gpt2_jax.training import optimizer


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ([*ACTIVATIONS, *GATES], knobs.ACTIVATIONS),
        (GATES, knobs.GATED_ACTIVATIONS),
        (ENCODINGS, knobs.POSITIONS),
        (norms.NORMS, knobs.NORMS),
        (norms.QK_NORMS, knobs.QK_NORMS),
        (residual.NORM_POSITIONS, knobs.NORM_POSITIONS),
        (residual.RESIDUAL_INITS, knobs.RESIDUAL_INITS),
        (optimizer.RULES, sections.OPTIMIZERS),
    ],
)
def test_every_name_of_the_config_has_its_entry_and_every_entry_its_name(table, names):
    assert set(table) == set(names)
    assert len(set(names)) == len(names)


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


_FORMULAS = {
    "gelu_new": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x * _sigmoid(x),
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "tanh": math.tanh,
    "relu2": lambda x: max(x, 0.0) ** 2,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_formula(name):
    x = np.linspace(-6, 6, 49)
    y = ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, [_FORMULAS[name](value) for value in x], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(2, 16, 128), (1, 5, 3072)])
def test_values_and_gradients_with_ours_are_those_of_autodiff(name, shape):
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=shape) * 3, jnp.float32) for _ in range(2))
    x = x.at[0, 0].set(jnp.linspace(-30, 30, shape[-1]))
    ours, plain = (_value_and_gradient(make_activation(name, plain=p))(x, dy) for p in (0, 1))
    np.testing.assert_array_equal(ours[0], plain[0])
    # The slope is the difference of numbers near 1 where x is far below 0.
    error = np.abs(ours[1] - plain[1])
    assert (error <= 2e-6 * np.abs(plain[1]) + 5e-6 * np.abs(dy)).all()


def _value_and_gradient(activation):
    def run(x, dy):
        y, pull_back = jax.vjp(activation, x)
        return y, pull_back(dy)[0]

    return jax.jit(run)


def test_our_gelu_in_bfloat16_has_the_gradient_of_float32_rounded():
    x = jnp.linspace(-8, 8, 4096).astype(jnp.bfloat16)
    y, dx = _value_and_gradient(make_activation("gelu_new", plain=False))(x, jnp.ones_like(x))
    plain_y, plain_dx = _value_and_gradient(make_activation("gelu_new", plain=True))(
        x, jnp.ones_like(x)
    )
    exact_dx = _value_and_gradient(make_activation("gelu_new", plain=True))(
        x.astype(jnp.float32), jnp.ones(x.shape)
    )[1]
    assert y.dtype == dx.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, plain_y)
    error, plain_error = (np.abs(np.float32(d) - exact_dx) for d in (dx, plain_dx))
    assert (error <= 2**-8 * np.abs(exact_dx) + 5e-6).all()  # half a unit in the last place
    assert error.max() <= plain_error.max()


def test_our_gelu_keeps_only_its_input():
    x = jnp.ones((4, 64), jnp.bfloat16)
    _, pull_back = jax.vjp(make_activation("gelu_new", plain=False), x)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(pull_back)) == x.nbytes
