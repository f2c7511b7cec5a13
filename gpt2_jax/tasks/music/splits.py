"""Divides pieces into splits that share no melody, and transposes those to train on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.work_items import Document
from gpt2_jax.tasks.music.events import encode, transposed
from gpt2_jax.tasks.music.notes import Piece

TRANSPOSITIONS = range(-5, 7)
"""Semitones by which the pieces to train on are moved: each key once."""
SPLITS = ("train", "val", "test")
RUN = 12
"""Successive intervals by which a melody is recognized."""


def families(pieces: Sequence[Piece], run: int = RUN) -> list[int]:
    """Returns a number for each piece, equal for pieces of the same melody.

    Pieces whose melodies have `run` successive intervals in common, at any place, are of one
    family, and so are those that are linked by others. A melody without as many counts as a whole.
    Chorales set a hymn again and again, in other keys, with another upbeat, and with passing notes
    here and there; comparing whole melodies notices few of them.
    """
    parents = list(range(len(pieces)))

    def root(number: int) -> int:
        while parents[number] != number:
            number = parents[number]
        return number

    owners: dict[tuple[int, ...], int] = {}
    for number, piece in enumerate(pieces):
        melody = piece.melody
        intervals = tuple(b - a for a, b in itertools.pairwise(melody))
        for start in range(max(1, len(intervals) - run + 1)):
            owner = owners.setdefault(intervals[start : start + run], number)
            parents[root(number)] = root(owner)
    return [root(number) for number in range(len(pieces))]


def split(
    pieces: Sequence[Piece], fraction: float, seed: int = 0, run: int = RUN
) -> dict[str, list[Piece]]:
    """Returns the pieces of "train", "val" and "test"; a family of melodies is in one of them.

    Args:
      pieces: all of them.
      fraction: the least share of the pieces in val, and in test.
      seed: seed of the order in which families are dealt out.
      run: see `families`.

    Raises:
      UserError: if a split would be empty.
    """
    numbers = families(pieces, run)
    order = sorted(set(numbers))
    random.Random(seed).shuffle(order)
    members = {number: [] for number in order}
    for piece, number in zip(pieces, numbers, strict=True):
        members[number].append(piece)
    splits: dict[str, list[Piece]] = {"val": [], "test": [], "train": []}
    for number in order:
        held_out = (name for name in ("val", "test") if len(splits[name]) < fraction * len(pieces))
        splits[next(held_out, "train")] += members[number]
    if empty := [name for name, found in splits.items() if not found]:
        raise UserError(
            f"{len(pieces)} pieces of {len(order)} melodies leave none for the {empty[0]} split: "
            "give more pieces, or another --val_fraction (above 0, below 0.5)"
        )
    return {name: sorted(splits[name], key=lambda piece: piece.name) for name in SPLITS}


def documents(pieces: Sequence[Piece], shifts: Sequence[int] = (0,)) -> Iterator[Document]:
    """Yields the pieces as texts, all of them in one transposition and then in the next.

    So neighbours are different music. A transposition that leaves the piano is left out.

    Raises:
      UserError: naming the piece, for a pitch that no piano has.
    """
    encoded = []
    for piece in pieces:
        try:
            encoded.append(encode(piece.notes))
        except UserError as error:
            raise UserError(f"{piece.name}: {error}") from None
    for shift in shifts:
        for piece, words in zip(pieces, encoded, strict=True):
            if moved := transposed(words, shift):
                name = f"{piece.name}, transposed by {shift}" if shift else piece.name
                yield Document(name, "".join(f"{word} " for word in moved))
