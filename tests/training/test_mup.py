"""With muP, matrices learn slower in wider models; at the base width nothing changes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import MeshConfig
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.planning.memory import state_bytes
from gpt2_jax.training import step
from gpt2_jax.training.mup import matrix_rate
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state, init_state
from tests.training.tiny import make_config, seen_whole_and_halved
from tests.training.updates import KERNELS, RATE, check_ten_updates, drawn, lowered, moves, named

_M = 4  # the width is 32
_CASES = [
    ({"name": "adamw"}, False, 1 / _M),
    pytest.param({"name": "adamw"}, True, 1 / _M, marks=pytest.mark.slow),  # by Optax
    pytest.param({"name": "lion"}, False, 1 / _M, marks=pytest.mark.slow),
    pytest.param({"name": "muon", "muon_scale": "adam"}, False, _M**-0.5, marks=pytest.mark.slow),
    ({"name": "muon", "muon_scale": "aspect"}, False, 1.0),
]


def mup_config(**changes):
    return make_config(model__mup_base_width=32 // _M, **changes)


@pytest.mark.parametrize(("optimizer", "plain", "factor"), _CASES)
def test_only_matrices_of_blocks_learn_slower(optimizer, plain, factor):
    knobs = {f"optimizer__{name}": value for name, value in optimizer.items()}
    knobs |= {"optimizer__weight_decay": 0.0, "compute__plain": plain}
    mup, standard = mup_config(**knobs), make_config(**knobs)
    assert matrix_rate(mup) == factor and matrix_rate(standard) == 1
    params = drawn(0, mup.model, 0.1)
    gradients = [drawn(1, mup.model), drawn(2, mup.model)]
    ours, theirs = (moves(config, gradients, params) for config in (mup, standard))
    assert ours.keys() > KERNELS
    for name, expected in theirs.items():
        expected = factor * expected if name in KERNELS else expected
        np.testing.assert_allclose(ours[name], expected, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize(("optimizer", "plain", "factor"), [*_CASES[:2], _CASES[3]])
def test_decay_of_matrices_does_not_depend_on_the_width_unless_asked(
    optimizer, plain, factor, independent
):
    knobs = {f"optimizer__{name}": value for name, value in optimizer.items()}
    knobs |= {"optimizer__weight_decay": 0.5, "compute__plain": plain}
    config = mup_config(**knobs, optimizer__mup_independent_decay=independent)
    params = drawn(0, config.model)
    nothing = jax.tree.map(jnp.zeros_like, params)
    of_params = named(params)
    for name, move in moves(config, [nothing], params).items():
        share = 0.0 if "bias" in name or "scale" in name else RATE * 0.5
        if name in KERNELS and not independent:
            share *= factor
        np.testing.assert_allclose(move, -share * of_params[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("independent", [True, False])
def test_ten_updates_in_one_pass_are_those_of_optax(independent):
    config = mup_config(optimizer__mup_independent_decay=independent)
    check_ten_updates(config)


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        pytest.param({"compute__plain": True}, marks=pytest.mark.slow),
        pytest.param({"optimizer__name": "muon"}, marks=pytest.mark.slow),
    ],
)
def test_at_the_base_width_the_step_is_that_of_the_standard_parametrization(knobs):
    standard = lowered(make_config(**knobs))
    assert lowered(make_config(model__mup_base_width=32, **knobs)) == standard
    assert lowered(mup_config(**knobs)) != standard


def test_the_state_takes_the_memory_it_takes_without_mup():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    standard, mup = (
        state_bytes(config, abstract_state(config, make_optimizer(config), mesh, Rules()))
        for config in (make_config(), mup_config())
    )
    assert mup == standard


@pytest.mark.slow
def test_a_run_resumes_to_the_bit(tmp_path):
    config = mup_config(
        model__mup_input_alpha=2.0,
        model__mup_output_alpha=3.0,
        eval__every=6,
        log__norms_every=0,
        train__total_steps=6,
    )
    whole, halves = seen_whole_and_halved(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole[-1], halves[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_eight_devices_train_as_one(name):
    config = mup_config(optimizer__name=name, model__d_model=32)
    optimizer, rules = make_optimizer(config), Rules()
    rng = np.random.default_rng(0)
    batches = rng.integers(0, 61, (4, 8, 17)).astype(np.uint16)
    losses = []
    for axes in ((1, 1, 1), (2, 2, 2)):
        mesh = make_mesh(MeshConfig(*axes), jax.devices()[: int(np.prod(axes))])
        abstract = abstract_state(config, optimizer, mesh, rules)
        state = init_state(config, optimizer, abstract)
        program = step.compile_train_step(config, optimizer, mesh, rules, abstract)
        numbers = step.step_numbers(config, mesh)
        of_mesh = []
        for tokens in batches:
            batch = step.Batch(jax.device_put(tokens, step.batch_sharding(mesh)))
            state, metrics = program(state, batch, numbers)
            of_mesh.append(float(metrics["loss"]))
        losses.append(of_mesh)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
