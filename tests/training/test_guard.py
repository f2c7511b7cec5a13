from __future__ import annotations

import functools
import math

import jax
import numpy as np
import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.training.guard import empty_window, judge

W, MOST = 8, 3


def make_config(threshold=5.0, window=W):
    train = {"spike_threshold": threshold, "spike_window": window, "max_spikes": MOST}
    return from_dict({"train": train}).train


@functools.cache
def compiled(config):
    return jax.jit(functools.partial(judge, config))


def judged(config, losses):
    """[accepted] of a run with these losses, and the limit at each."""
    window, verdicts, limits = empty_window(config), [], []
    for loss in np.asarray(losses, np.float32):
        accepted, window, limit = compiled(config)(window, loss, np.isfinite(loss))
        verdicts.append(bool(accepted))
        limits.append(float(limit))
    return verdicts, limits


def oracle(config, losses):
    """The same from the knobs' descriptions, in NumPy."""
    last, in_a_row, verdicts = [], 0, []
    for loss in np.asarray(losses, np.float32):
        if not np.isfinite(loss):
            verdicts.append(False)
            continue
        spike = False
        if len(last) >= config.spike_window:
            recent = np.array(last[-config.spike_window :])
            deviation = 1.4826 * np.median(np.abs(recent - np.median(recent)))
            spike = loss > np.median(recent) + config.spike_threshold * max(deviation, 1e-3)
        in_a_row = in_a_row + 1 if spike else 0
        verdicts.append(not spike or in_a_row > config.max_spikes)
        if verdicts[-1]:
            last.append(loss)
    return verdicts


def steady(count, seed=0):
    return 3 + 0.1 * np.random.default_rng(seed).standard_normal(count)


@pytest.mark.parametrize("window", [8, 9])  # the median of an even number is between two
@pytest.mark.parametrize("seed", range(3))
def test_verdicts_are_those_of_numpy(seed, window):
    rng, config = np.random.default_rng(seed), make_config(window=window)
    losses = np.linspace(9, 3, 300) + 0.05 * rng.standard_t(2, 300)
    losses[150:200] += 4  # a change that lasts a while
    losses[rng.choice(300, 30, replace=False)] += rng.uniform(0, 3, 30)
    losses[rng.choice(300, 20, replace=False)] = rng.choice([math.nan, math.inf, -math.inf], 20)
    verdicts, _ = judged(config, losses)
    assert verdicts == oracle(config, losses)
    finite = np.isfinite(losses)
    assert 10 < (finite & ~np.array(verdicts)).sum() < 100


def test_a_spike_is_skipped_once_the_window_is_full_and_leaves_no_trace_in_it():
    config, losses = make_config(), steady(W + 20)
    for at in range(W + 20):
        spiked = np.insert(losses, at, 9.0)
        verdicts, limits = judged(config, spiked)
        assert verdicts[at] == (at < W)
        if at >= W:
            assert np.delete(limits, at).tolist() == judged(config, losses)[1]
    assert all(judged(config, losses)[0])


def test_what_is_not_finite_neither_counts_as_a_spike_nor_ends_a_row_of_them():
    losses = [*steady(W), 9, math.nan, 9, math.inf, 9, math.nan, 9, math.nan, 9]
    expected = [True] * W + [False] * (2 * MOST) + [True, False, True]
    assert judged(make_config(), losses)[0] == expected


def test_a_change_that_lasts_costs_so_many_steps_once():
    verdicts, limits = judged(make_config(), [*steady(2 * W), *(4 + steady(100))])
    assert verdicts == [True] * (2 * W) + [False] * MOST + [True] * (100 - MOST)
    # By then the window is of the new losses: a spike above them is one again.
    assert 7 < limits[-1] < 9


def test_losses_that_fall_are_never_skipped():
    assert all(judged(make_config(threshold=0.5), np.linspace(11, 0, 100))[0])


def test_losses_that_hardly_differ_have_a_limit_above_their_rounding():
    constant = np.full(2 * W, 3.0)
    ripple = constant * (1 + 1e-5 * np.random.default_rng(0).standard_normal(2 * W))
    for losses in (constant, ripple, np.zeros(2 * W)):
        verdicts, limits = judged(make_config(), losses)
        assert all(verdicts)
        assert limits[-1] == pytest.approx(losses[0] + 5e-3, rel=1e-3)


def test_without_a_threshold_there_is_no_window():
    config = make_config(threshold=0.0)
    assert empty_window(config) is None
    assert judge(config, None, np.float32(3), np.True_) == (np.True_, None, None)
