"""The average of the parameters: its numbers, its place in the state, and its validation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.training.update import updated_average
from tests.training.tiny import make_config, seen_whole_and_halved, steps_with

_NUMBERS = ("eval/count", "eval/ema_count")


@pytest.mark.parametrize("decay", [0.5, 0.999, 0.99999])
def test_the_average_is_that_of_numpy_and_rejected_updates_leave_it(decay):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 3)).astype(np.float32)
    average, update = {"a": jnp.zeros(3)}, jax.jit(updated_average, static_argnums=0)
    for t, value in enumerate(values, start=1):
        args = decay, average, {"a": jnp.asarray(value)}, jnp.int32(t)
        np.testing.assert_array_equal(update(*args, jnp.bool_(False))["a"], average["a"])
        average = update(*args, jnp.bool_(True))
        weights = decay ** np.arange(t - 1, -1, -1, dtype=np.float64)
        expected = weights @ values[:t].astype(np.float64) / weights.sum()
        np.testing.assert_allclose(average["a"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lion", "adamw", "muon", "adafactor"])
def test_a_run_resumes_to_the_bit_with_its_average_and_validates_both(tmp_path, name):
    config = make_config(
        optimizer__name=name,
        optimizer__ema_decay=0.9,
        schedule__name="wsd",
        eval__every=2,
        log__norms_every=0,
        train__total_steps=6,
    )
    whole, halves = seen_whole_and_halved(config, tmp_path)
    for folder in ("whole", "halves"):
        steps = [steps_with(tmp_path / folder, number) for number in _NUMBERS]
        assert steps[0] == steps[1] and steps[0][-1] == 6
    # They saw parameters and average by turns; the halves validate after step 3, too.
    assert len(whole) == 6 and len(halves) == 8
    pairs = zip(jax.tree.leaves(whole[-2:]), jax.tree.leaves(halves[-2:]), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    kernels = [each["h"]["mlp"]["c_fc"]["kernel"] for each in whole[-2:]]
    assert 0 < np.abs(kernels[0] - kernels[1]).max() < 0.1
