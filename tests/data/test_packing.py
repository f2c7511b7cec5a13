"""Properties of packing: every example once, no row too long, the same for the same seed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.data import packing
from gpt2_jax.data.packing import Epochs, Packing, pack, pack_epoch

_CAPACITY = 17
_LENGTHS = st.lists(st.integers(1, _CAPACITY), min_size=1, max_size=300).map(np.array)


def _check(packing: Packing, lengths: np.ndarray) -> None:
    assert np.array_equal(np.sort(packing.examples), np.arange(len(lengths)))
    assert packing.starts[0] == 0
    assert packing.starts[-1] == len(lengths)
    for number in range(len(packing)):
        assert 1 <= lengths[packing.row(number)].sum() <= _CAPACITY


@given(_LENGTHS)
@settings(max_examples=60, deadline=None)
def test_every_example_is_in_one_row_that_holds_it(lengths):
    _check(pack(lengths, _CAPACITY), lengths)


@given(_LENGTHS, st.integers(0, 2**32 - 1), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_an_epoch_is_a_pure_function_of_its_seed_and_number(lengths, seed, epoch):
    one, other = (pack_epoch(lengths, _CAPACITY, seed, epoch) for _ in range(2))
    _check(one, lengths)
    assert np.array_equal(one.examples, other.examples)
    assert np.array_equal(one.starts, other.starts)


def test_examples_lie_in_the_first_open_row_with_room():
    packing = pack(np.array([10, 9, 7, 8, 17]), _CAPACITY)
    rows = [packing.row(number).tolist() for number in range(len(packing))]
    assert rows == [[0, 2], [1, 3], [4]]


def test_rows_are_nearly_full():
    lengths = np.random.default_rng(0).integers(5, 200, 5000)
    packing = pack(lengths, 513)
    assert lengths.sum() / 513 / len(packing) > 0.97


def test_epochs_and_seeds_differ():
    lengths = np.random.default_rng(0).integers(1, _CAPACITY, 100)
    orders = {
        tuple(pack_epoch(lengths, _CAPACITY, *key).examples.tolist())
        for key in ((0, 0), (0, 1), (1, 0))
    }
    assert len(orders) == 3


def test_rows_of_all_epochs_have_numbers_and_can_be_asked_for_in_any_order():
    lengths = np.random.default_rng(0).integers(1, _CAPACITY, 50)
    forwards = Epochs(lengths, _CAPACITY, 3)
    counts = [forwards.rows_of(epoch) for epoch in range(6)]
    rows = [forwards.row(number).tolist() for number in range(sum(counts))]
    begin = 0
    for count in counts:
        assert sorted(i for row in rows[begin : begin + count] for i in row) == list(range(50))
        begin += count
    backwards = Epochs(lengths, _CAPACITY, 3)
    assert [backwards.row(n).tolist() for n in reversed(range(len(rows)))] == rows[::-1]
    assert forwards.place(counts[0]) == (1, 0)


def test_a_long_wait_for_earlier_epochs_is_announced(monkeypatch):
    lengths, lines = np.random.default_rng(0).integers(1, _CAPACITY, 50), []
    monkeypatch.setattr(packing, "_LONG_SECONDS", 1e-9)
    epochs = Epochs(lengths, _CAPACITY, 3, lines.append)
    count = epochs.rows_of(0)
    for number in range(3 * count):  # as a run that was never stopped asks for them
        epochs.row(number)
    assert not lines
    epochs.row(20 * count)
    (line,) = lines
    assert re.match(r"packing the 1[67] epochs before this one, to go on where the run was", line)
    monkeypatch.undo()
    epochs.row(30 * count)
    assert lines == [line]


def test_lengths_that_fit_no_row_are_refused():
    with pytest.raises(ValueError, match="from 1 to 17"):
        pack(np.array([18]), _CAPACITY)
    with pytest.raises(ValueError, match="nothing to pack"):
        Epochs(np.array([], np.int64), _CAPACITY, 0)
