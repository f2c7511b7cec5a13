"""The tables of the model and the optimizer have exactly the names that the config allows."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import model as knobs
from gpt2_jax.config import sections
from gpt2_jax.model import norms
from gpt2_jax.model.activations import ACTIVATIONS
from gpt2_jax.model.positions import ENCODINGS
from gpt2_jax.training import optimizer


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (ACTIVATIONS, knobs.ACTIVATIONS),
        (ENCODINGS, knobs.POSITIONS),
        (norms.NORMS, knobs.NORMS),
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
}


@pytest.mark.parametrize("name", knobs.ACTIVATIONS)
def test_an_activation_is_its_formula(name):
    x = np.linspace(-6, 6, 49)
    y = ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, [_FORMULAS[name](value) for value in x], rtol=1e-5, atol=2e-6)
