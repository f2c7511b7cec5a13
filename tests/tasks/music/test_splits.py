"""Tests that splits share no melody, and the transpositions."""

from __future__ import annotations

import itertools
import random

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.tasks.music.notes import Note, Piece
from gpt2_jax.tasks.music.splits import TRANSPOSITIONS, documents, families, split


def _piece(name: str, melody: list[int]) -> Piece:
    notes = tuple(Note(4 * i, pitch, 4) for i, pitch in enumerate(melody))
    return Piece(name, notes, tuple(melody))


def _pieces(count: int = 40) -> list[Piece]:
    """Returns pieces of which each third one repeats a phrase of the one before."""
    rng = random.Random(0)
    pieces, melody = [], []
    for number in range(count):
        before, melody = melody, [rng.randrange(55, 80) for _ in range(30)]
        if number % 3 == 2:
            melody[5:25] = [pitch + 2 for pitch in before[3:23]]
        pieces.append(_piece(f"{number:02d}", melody))
    return pieces


def test_a_common_phrase_in_another_key_makes_a_family():
    numbers = families(_pieces())
    pairs = itertools.pairwise(numbers)
    assert all((a == b) == (i % 3 == 2) for i, (a, b) in enumerate(pairs, 1))


def test_families_are_linked_by_others():
    rng = random.Random(1)
    one, two = ([rng.randrange(55, 80) for _ in range(20)] for _ in range(2))
    pieces = [_piece("a", one), _piece("b", two), _piece("c", one + two), _piece("d", one[::-1])]
    a, b, c, d = families(pieces)
    assert a == b == c != d
    assert len(set(families(pieces, run=10**6))) == 4


def test_a_short_melody_counts_as_a_whole():
    a, b, c = families([_piece("a", [60, 62, 64]), _piece("b", [62, 64, 66]), _piece("c", [60])])
    assert a == b != c


def test_every_piece_is_in_one_split_with_its_family():
    pieces = _pieces()
    parts = split(pieces, 0.2)
    names = [piece.name for part in parts.values() for piece in part]
    assert sorted(names) == [piece.name for piece in pieces] and [*parts] == [
        "train",
        "val",
        "test",
    ]
    assert len(parts["val"]) >= 8 and len(parts["test"]) >= 8
    number = dict(zip((piece.name for piece in pieces), families(pieces), strict=True))
    found = [{number[piece.name] for piece in part} for part in parts.values()]
    assert sum(map(len, found)) == len(set.union(*found))
    assert split(pieces, 0.2) == parts != split(pieces, 0.2, seed=1)


def test_too_few_melodies_are_refused():
    with pytest.raises(UserError, match="2 pieces of 1 melodies leave none for the test split"):
        split([_piece("a", list(range(50, 80))), _piece("b", list(range(50, 80)))], 0.1)


def test_neighbours_are_different_pieces():
    pieces = [_piece("a", [60, 62]), _piece("b", [60, 107])]
    names = [each.name for each in documents(pieces, TRANSPOSITIONS)]
    # Two semitones more, and the second one leaves the piano.
    assert len(names) == 12 + 7 and names[:2] == ["a, transposed by -5", "b, transposed by -5"]
    assert [each.name for each in documents(pieces)] == ["a", "b"]
    with pytest.raises(UserError, match="c: pitch 109 is outside"):
        list(documents([_piece("c", [109])]))
