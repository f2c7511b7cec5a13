"""Tests how voices become one instrument, and where bars begin."""

from __future__ import annotations

import random

from gpt2_jax.tasks.music.notes import Meter, Note, Piece, merged


def test_voices_that_meet_on_a_pitch_become_one_note():
    assert merged([[Note(0, 60, 4)], [Note(0, 60, 8), Note(0, 64, 4)]]) == (
        Note(0, 60, 8),
        Note(0, 64, 4),
    )


def test_a_held_pitch_that_another_voice_strikes_ends_there():
    assert merged([[Note(0, 60, 8)], [Note(4, 60, 2)]]) == (Note(0, 60, 4), Note(4, 60, 4))


def test_no_pitch_sounds_twice_and_what_sounds_stays():
    rng = random.Random(0)
    for _ in range(50):
        voices = [
            [Note(rng.randrange(20), rng.randrange(60, 64), rng.randrange(1, 9)) for _ in range(5)]
            for _ in range(4)
        ]
        notes = merged(voices)
        sounding = [(step, n.pitch) for n in notes for step in range(n.start, n.stop)]
        given = {
            (step, n.pitch) for each in voices for n in each for step in range(n.start, n.stop)
        }
        assert len(sounding) == len(set(sounding)) and set(sounding) == given
        starts = {(n.start, n.pitch) for each in voices for n in each}
        assert {(n.start, n.pitch) for n in notes} == starts and list(notes) == sorted(notes)


def test_bars_follow_the_meters():
    piece = Piece("x", (), (), (Meter(0, 16), Meter(32, 12)))
    assert piece.bars(60) == [0, 16, 32, 44, 56]
    assert piece.bars(20) == [0, 16]
