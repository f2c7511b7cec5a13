"""Tests which tokens top-k, top-p and min-p keep, against sorting them in plain Python."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.inference.cuts import kept
from gpt2_jax.inference.sampling import SamplingOptions
from tests.inference.plain_sampling import expected

# Far enough apart that float32 and float64 agree on who crosses p.
_LOGITS = np.array([0.5, 2.0, -1.0, 1.0, 2.0, 0.0, -3.0, 1.5], np.float32)
_run = jax.jit(kept)


def _kept(logits: np.ndarray, *options: SamplingOptions) -> np.ndarray:
    """Returns the kept tokens of one row for each of the options, [B, V]."""
    rows = [np.asarray(logits, np.float32) / np.float32(o.temperature) for o in options]
    values = (
        np.array([getattr(o, name) for o in options], dtype)
        for name, dtype in (("top_k", np.int32), ("top_p", np.float32), ("min_p", np.float32))
    )
    return np.asarray(_run(jnp.asarray(rows), *values))


def _counts(logits: np.ndarray, *options: SamplingOptions) -> list[int]:
    return _kept(logits, *options).sum(-1).tolist()


def test_top_k_keeps_exactly_k_even_of_equals() -> None:
    ks = [1, 2, 3, 7, 8, 9, 50, 0]
    for logits in (_LOGITS, np.zeros(8, np.float32), np.array([0.0, -0.0] * 4, np.float32)):
        rows = _kept(logits, *(SamplingOptions(top_k=k) for k in ks))
        order = sorted(range(8), key=lambda i: (-logits[i], i))
        for k, row in zip(ks, rows, strict=True):
            assert np.flatnonzero(row).tolist() == sorted(order[: k or 8])


def _of(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities)).astype(np.float32)


def test_top_p_keeps_the_token_that_crosses_p() -> None:
    ps = (0.0, 0.1, 0.49, 0.51, 0.79, 0.81, 0.96, 1.0)
    options = [SamplingOptions(top_p=p) for p in ps]
    assert _counts(_of(0.5, 0.3, 0.15, 0.05), *options) == [1, 1, 1, 2, 2, 3, 4, 4]


def test_top_p_of_one_keeps_the_rarest_and_of_zero_the_lowest_id_of_the_best() -> None:
    # Sums of float32 probabilities reach 1 before the rarest token comes.
    logits = np.concatenate([np.zeros(1000), [-40.0, -300.0, -np.inf]]).astype(np.float32)
    assert _kept(logits, SamplingOptions(top_p=1.0, top_k=1003)).all()
    assert np.flatnonzero(_kept(logits, SamplingOptions(top_p=0.0))[0]).tolist() == [0]


def test_top_p_counts_after_temperature_and_top_k_renormalized() -> None:
    logits = _of(0.5, 0.3, 0.15, 0.05)
    # At temperature 2: 0.379, 0.294, 0.207, 0.120 (square roots, renormalized).
    warm = [SamplingOptions(t, top_p=p) for t, p in ((2, 0.6), (2, 0.7), (1, 0.7), (0.25, 0.7))]
    assert _counts(logits, *warm) == [2, 3, 2, 1]
    # Of the top two, 0.5 and 0.3, the first holds 0.625: enough for 0.6, where 0.5 is not.
    few = [SamplingOptions(top_k=k, top_p=p) for k, p in ((2, 0.6), (0, 0.6), (2, 0.65))]
    assert _counts(logits, *few) == [1, 2, 2]


def test_min_p_is_relative_to_the_most_probable() -> None:
    options = [SamplingOptions(min_p=p) for p in (0.0, 0.09, 0.11, 0.29, 0.31, 0.59, 0.61, 1.0)]
    assert _counts(_of(0.5, 0.3, 0.15, 0.05), *options) == [4, 4, 3, 3, 2, 2, 1, 1]
    assert _counts(np.zeros(5, np.float32), SamplingOptions(min_p=1.0)) == [5]


_V = 12


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    # Integers, so that ties are frequent.
    logits=st.lists(st.integers(-6, 6), min_size=_V, max_size=_V),
    options=st.lists(
        st.builds(
            SamplingOptions,
            temperature=st.sampled_from([0.25, 0.7, 1.0, 2.0]),
            top_k=st.sampled_from([0, 1, 3, _V, _V + 5]),
            # Not a sum that a few equal tokens reach exactly, where rounding decides.
            top_p=st.sampled_from([0.0, 0.1234, 0.4567, 0.7123, 0.9871, 1.0]),
            min_p=st.sampled_from([0.0, 0.0321, 0.6789]),
        ),
        min_size=3,
        max_size=3,
    ),
)
def test_what_is_kept_is_what_sorting_keeps(
    logits: list[int], options: list[SamplingOptions]
) -> None:
    array = np.array(logits, np.float32)
    for row, wanted in zip(_kept(array, *options), options, strict=True):
        np.testing.assert_array_equal(row, expected(array, wanted) > 0)


@pytest.mark.parametrize("k", [5, 300])
def test_rows_of_a_real_vocabulary_are_those_of_numpy(k: int) -> None:
    rows = np.random.default_rng(k).normal(0, 3, (4, 50257)).astype(np.float32)
    best = np.argsort(-rows, axis=-1, kind="stable")[:, :k]
    none = np.ones(4, np.float32)
    found = np.asarray(_run(rows, np.full(4, k, np.int32), none, 0 * none))
    for row, ids in zip(found, best, strict=True):
        assert np.flatnonzero(row).tolist() == sorted(ids.tolist())
