"""Rows of examples: what is learned of each, where they lie, and that every one is drawn once."""

from __future__ import annotations

import collections
import functools

import numpy as np
import pytest

from gpt2_jax.data.example_batches import ExampleLoader, ExampleRows, fit
from gpt2_jax.data.examples import held_out, overlap_warning
from gpt2_jax.data.loader import TrainLoader, place
from gpt2_jax.data.mixture import MixtureLoader
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.errors import UserError
from tests.data.example_sets import EOT, make_examples, random_pairs
from tests.data.test_loader import mesh_sharding

T = 16


def make_loader(pairs, batch_size=8, seed=3):
    fitted = fit(make_examples(pairs), T, "made")
    return ExampleLoader(fitted, batch_size=batch_size, seed=seed, padding=EOT, folder="made")


def examples_in(batch):
    """Yields (prompt, answer) of every example of a batch, as rows and segments show them."""
    for tokens, weights, segments in zip(*batch, strict=True):
        for segment in range(1, segments.max() + 1):
            (slots,) = np.nonzero(segments == segment)
            if learned := weights[slots].sum():
                first = int(slots[weights[slots] > 0][0])
                answer = tokens[first + 1 : first + 1 + int(learned)].tolist()
                assert answer.pop() == EOT
                yield tuple(tokens[slots[0] : first + 1].tolist()), tuple(answer)


def test_a_row_by_hand():
    rows = ExampleRows(
        fit(make_examples([((1, 2), (3,)), ((4,), (5, 6))]), T, "made"), batch_size=2, padding=EOT
    )
    batch = rows.rows(0, range(2))
    assert batch.tokens[0].tolist() == [1, 2, 3, EOT, 4, 5, 6, *[EOT] * (T + 1 - 7)]
    assert batch.weights[0].tolist() == [0, 1, 1, 0, 1, 1, 1, *[0] * (T - 7)]
    assert batch.segments[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, *[3] * (T - 8)]
    assert not batch.weights[1].any()
    assert (len(rows), rows.num_rows) == (1, 1)
    assert rows.targets(np.array([1] * 60 + [0])) == (5, 3)


def test_prompts_count_as_much_as_they_are_to():
    fitted = fit(make_examples([((1, 2, 3), (4,)), ((5,), (6, 7))]), T, "made")
    batch = fitted.batch([np.array([0, 1])], EOT, prompt_weight=0.5)
    assert batch.weights[0].tolist() == [0.5, 0.5, 1, 1, 0, 1, 1, 1, *[0] * (T - 8)]
    plain = fitted.batch([np.array([0, 1])], EOT)
    assert plain.weights[0].tolist() == [0, 0, 1, 1, 0, 1, 1, 1, *[0] * (T - 8)]
    assert (plain.tokens == batch.tokens).all() and (plain.segments == batch.segments).all()


def test_an_example_may_fill_a_row_to_its_last_target():
    pairs = [(tuple(range(9)), tuple(range(7)))]  # and the end of text: T + 1 tokens
    batch = make_loader(pairs, batch_size=1).rows(0, [0])
    assert list(examples_in(batch)) == pairs
    assert batch.weights[0, -1] == 1
    assert (batch.segments == 1).all()


def test_every_example_is_drawn_once_an_epoch():
    pairs = random_pairs(101)
    loader = make_loader(pairs)
    seen = []
    step = 0
    while len(seen) < 3 * len(pairs):
        seen += examples_in(loader.rows(step, range(8)))
        step += 1
    wanted = collections.Counter((tuple(p), tuple(a)) for p, a in pairs)
    for epoch in range(3):
        part = seen[epoch * len(pairs) : (epoch + 1) * len(pairs)]
        assert collections.Counter(part) == wanted
    assert 0 < loader.rows_per_epoch < len(pairs)


def test_any_rows_are_the_rows_of_the_whole_batch():
    pairs = random_pairs(101)
    whole = make_loader(pairs).rows(40, range(8))
    for parts in (2, 4):
        rows = [make_loader(pairs).rows(40, part) for part in np.split(np.arange(8), parts)]
        for name in ("tokens", "weights", "segments"):
            joined = np.concatenate([getattr(part, name) for part in rows])
            assert np.array_equal(joined, getattr(whole, name))


@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_batches_are_the_same_on_every_mesh(axes):
    loader = make_loader(random_pairs(101))
    placed = place(functools.partial(loader.rows, 5), mesh_sharding(*axes), (8, T))
    for ours, theirs in zip(placed, loader.rows(5, range(8)), strict=True):
        assert np.array_equal(ours, theirs)


def test_prompts_are_cut_at_their_end_and_answers_never():
    long = tuple(range(30))
    fitted = fit(make_examples([(long, (1, 2)), ((3,), long), ((4,), (5,))]), T, "made")
    assert (fitted.cut, fitted.left_out) == (1, 1)
    assert fitted.describe("train") == (
        "1 prompt was cut at its end and 1 example was left out, because its answer does not fit "
        "(of 3 train examples; model.context_length=16)"
    )
    loader = ExampleLoader(fitted, batch_size=2, seed=0, padding=EOT)
    found = sorted(examples_in(loader.rows(0, range(2))))
    assert found == [(long[: T + 1 - 3], (1, 2)), ((4,), (5,))]
    with pytest.raises(UserError, match=r"made: no example fits .* shortest answer has 31 tokens"):
        fit(make_examples([((3,), long)]), T, "made")


def test_origins_say_which_lines_are_in_a_row():
    pairs = random_pairs(40)
    loader = make_loader(pairs)
    for (folder, lines), row in zip(loader.origins(4), range(8), strict=True):
        found = list(examples_in(loader.rows(4, [row])))
        assert folder == "made"
        assert [tuple(map(tuple, pairs[line - 1])) for line in lines] == found


@pytest.mark.parametrize("first_token", [None, 7])
def test_a_mixture_gives_windows_weights_and_segments(first_token):
    tokens = TokenArray([(np.arange(500) % 50).astype(np.uint16)])
    windows = TrainLoader(tokens, batch_size=8, context_length=T, seed=3, folder="tokens")
    examples = make_loader(random_pairs(40))
    mixed = MixtureLoader([examples, windows], [1, 3], first_token)
    assert mixed.weighted
    assert mixed.segmented
    batch = mixed.rows(1, range(8))
    folders = [folder for folder, _ in mixed.origins(1)]
    assert collections.Counter(folders) == {"made": 2, "tokens": 6}
    for i, folder in enumerate(folders):
        if folder == "tokens":
            assert (batch.weights[i] == 1).all()
            borders = np.cumsum(batch.inputs[i] == first_token)
            assert np.array_equal(batch.segments[i], borders)
    drawn = [i for i, folder in enumerate(folders) if folder == "made"]
    alone = examples.rows(0, range(2, 4))  # the first two were in batch 0
    assert np.array_equal(batch.tokens[drawn], alone.tokens)
    assert np.array_equal(batch.segments[drawn], alone.segments)


def test_examples_in_both_splits_are_counted():
    pairs = random_pairs(50)
    assert overlap_warning("made", make_examples(pairs), make_examples([((1,), (2,) * 9)])) is None
    shared = make_examples([((1,), (2,) * 9), pairs[3], pairs[7]])
    message = overlap_warning("made", make_examples(pairs), shared)
    assert message is not None
    assert "2 of the 3 validation examples of made" in message
    assert "validation lines 2, 3)" in message


@pytest.mark.parametrize(
    ("count", "fraction", "held"), [(2, 0.0, 1), (2, 0.99, 1), (20, 0.05, 1), (100, 0.1, 10)]
)
def test_at_least_one_example_is_held_out_and_one_is_left(count, fraction, held):
    assert held_out(count, fraction) == held
