"""Tests events: miditok's words, their order, and what any words decode to."""

from __future__ import annotations

import random

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.tasks.music.events import (
    PITCHES,
    _miditok,
    decode,
    duration,
    encode,
    transposed,
    vocabulary,
)
from gpt2_jax.tasks.music.notes import Note, merged

CHORD = [Note(0, 64, 6), Note(0, 60, 4), Note(4, 72, 40)]
WORDS = (
    "NoteOn_60 NoteOn_64 TimeShift_1.0.4 NoteOff_60 NoteOn_72 TimeShift_0.2.4 NoteOff_64 "
    "TimeShift_4.0.4 TimeShift_4.0.4 TimeShift_1.2.4 NoteOff_72"
)


def _random_notes(seed: int) -> tuple[Note, ...]:
    rng = random.Random(seed)
    notes = [Note(rng.randrange(60), rng.choice(PITCHES), rng.randrange(1, 30)) for _ in range(40)]
    return merged([notes])


def test_words_are_in_one_order():
    assert " ".join(encode(CHORD)) == WORDS
    assert encode(reversed(CHORD)) == encode(CHORD)
    assert encode([]) == []


def test_notes_survive():
    for seed in range(20):
        notes = _random_notes(seed)
        words = encode(notes)
        # A rest before the first note is kept.
        assert decode(words) == (notes, 0)
        known = vocabulary()
        assert known.decode(known.encode(" ".join(words))).split() == words


def test_the_vocabulary_is_miditoks():
    words = vocabulary().words
    assert len(words) == 192 and set(words) < set(_miditok().vocab)


def test_miditok_reads_the_same_notes():
    from miditok import TokSequence

    notes = _random_notes(0)
    score = _miditok().decode([TokSequence(tokens=encode(notes))])
    found = sorted(Note(n.time, n.pitch, n.duration) for t in score.tracks for n in t.notes)
    assert found == list(notes)


@pytest.mark.parametrize(
    ("text", "notes", "stray"),
    [
        ("NoteOff_60 TimeShift_1.0.4", [], 1),
        ("NoteOn_60 TimeShift_1.0.4", [Note(0, 60, 4)], 1),
        ("NoteOn_60 NoteOff_60", [], 2),
        # A pitch that is struck twice: the earlier one ends first.
        (
            "NoteOn_60 TimeShift_0.1.4 NoteOn_60 TimeShift_0.1.4 NoteOff_60 TimeShift_0.1.4 "
            "NoteOff_60",
            [Note(0, 60, 2), Note(1, 60, 2)],
            0,
        ),
        ("", [], 0),
    ],
)
def test_any_words_are_read(text, notes, stray):
    assert decode(text.split()) == (tuple(notes), stray)


def test_transposed_words_are_those_of_transposed_notes():
    higher = [note._replace(pitch=note.pitch + 5) for note in CHORD]
    assert transposed(WORDS.split(), 5) == encode(higher)
    assert transposed(WORDS.split(), 37) is None and transposed(WORDS.split(), -40) is None


def test_time_is_counted_in_sixteenths():
    shifts = [word for word in vocabulary().words if duration(word)]
    assert [duration(word) for word in shifts] == list(range(1, 17))


def test_pitches_outside_the_piano_are_named():
    with pytest.raises(UserError, match="pitch 20 is outside the piano's 21 to 108"):
        encode([Note(0, 20, 4)])
