"""Notes as events, the words of a language: a pitch begins, ends, or time passes.

The words are miditok's (MIDILike, after Oore et al. 2018, "This Time with Feeling", section 3.1)
without velocities: `NoteOn_60`, `NoteOff_60`, and `TimeShift_1.2.4` for 1 + 2/4 quarter notes. What
happens at the same time is in one order, ends before beginnings and low before high, so that equal
music has equal words, and a model need not guess an order that nobody hears.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gpt2_jax.errors import UserError
from gpt2_jax.files.extras import import_extra
from gpt2_jax.tasks.music.notes import STEPS, Note
from gpt2_jax.tokenizers.words import WordsTokenizer

PITCHES = range(21, 109)
"""MIDI numbers of the keys of a piano, A0 to C8."""
_LONGEST_SHIFT = 4 * STEPS
_ON, _OFF = "NoteOn_", "NoteOff_"


class Decoded(NamedTuple):
    """Holds the notes of some events."""

    notes: tuple[Note, ...]
    stray: int
    """How many ends of pitches had no beginning, and how many beginnings no end."""


def vocabulary() -> WordsTokenizer:
    """Returns the tokenizer of events, which does not depend on the data: 192 words."""
    words = [f"{kind}{pitch}" for kind in (_ON, _OFF) for pitch in PITCHES]
    return WordsTokenizer([*words, *map(_shift, range(1, _LONGEST_SHIFT + 1))])


def is_onset(word: str) -> bool:
    """Returns whether the word begins a note, so that notes can be counted."""
    return word.startswith(_ON)


def onsets(words: Iterable[str]) -> set[tuple[int, int]]:
    """Returns (step, pitch) of every beginning of a note."""
    found, now = set(), 0
    for word in words:
        now += duration(word)
        if is_onset(word):
            found.add((now, int(word.removeprefix(_ON))))
    return found


def duration(word: str) -> int:
    """Returns the steps that pass with a word, 0 for all but shifts of time."""
    if not word.startswith("TimeShift_"):
        return 0
    beats, steps, resolution = word.removeprefix("TimeShift_").split(".")
    return (int(beats) * int(resolution) + int(steps)) * STEPS // int(resolution)


def encode(notes: Iterable[Note]) -> list[str]:
    """Returns the words of notes of which no pitch sounds twice at a time.

    Raises:
      UserError: for a pitch that no piano has.
    """
    notes = sorted(notes)
    for note in notes:
        if note.pitch not in PITCHES:
            raise UserError(
                f"pitch {note.pitch} is outside the piano's {PITCHES[0]} to {PITCHES[-1]}: "
                "transpose or remove the note"
            )
    if not notes:
        return []
    score = score_of(notes)
    (sequence,) = _miditok().encode(score, no_preprocess_score=True)
    words: list[str] = []
    for _, group in itertools.groupby(sequence.tokens, key=lambda word: duration(word) > 0):
        words += sorted(group, key=_order)
    return words


def transposed(words: Iterable[str], semitones: int) -> list[str] | None:
    """Returns the words of the same music so much higher, or None if it leaves the piano."""
    found = []
    for word in words:
        if duration(word):
            found.append(word)
            continue
        kind, _, pitch = word.partition("_")
        if (moved := int(pitch) + semitones) not in PITCHES:
            return None
        found.append(f"{kind}_{moved}")
    return found


def decode(words: Sequence[str]) -> Decoded:
    """Returns the notes of any words, also of those that a model has made up.

    An end belongs to the earliest note of its pitch that sounds. Ends of silence are left out, and
    so are notes without length. A note that never ends is held to the last word.
    """
    sounding: dict[str, list[int]] = {}
    notes, stray, now = [], 0, 0
    for word in words:
        pitch = word.rpartition("_")[2]
        if passed := duration(word):
            now += passed
        elif is_onset(word):
            sounding.setdefault(pitch, []).append(now)
        elif not sounding.get(pitch):
            stray += 1
        elif (start := sounding[pitch].pop(0)) < now:
            notes.append(Note(start, int(pitch), now - start))
        else:  # a note of no length
            stray += 2
    for pitch, starts in sounding.items():
        stray += len(starts)
        notes += [Note(start, int(pitch), now - start) for start in starts if start < now]
    return Decoded(tuple(sorted(notes)), stray)


def score_of(notes: Iterable[Note], program: int = 0) -> Any:
    """Returns a symusic Score with a track of these notes."""
    symusic = import_extra("symusic", extra="tasks", needed_by="music")
    track = symusic.Track("", program)
    for note in notes:
        track.notes.append(symusic.Note(note.start, note.length, note.pitch, 90))
    score = symusic.Score(STEPS)
    score.tracks.append(track)
    return score


def _shift(steps: int) -> str:
    return f"TimeShift_{steps // STEPS}.{steps % STEPS}.{STEPS}"


def _order(word: str) -> tuple[bool, int]:
    """Returns what words of one time are sorted by; shifts of time stay as they are."""
    return is_onset(word), 0 if duration(word) else int(word.rpartition("_")[2])


@functools.cache
def _miditok() -> Any:
    """Returns miditok's tokenizer with the words of `vocabulary` and some that never occur."""
    miditok = import_extra("miditok", extra="tasks", needed_by="music")
    return miditok.MIDILike(
        miditok.TokenizerConfig(
            pitch_range=(PITCHES.start, PITCHES.stop),
            beat_res={(0, _LONGEST_SHIFT // STEPS): STEPS},
            use_velocities=False,
            use_time_signatures=False,
            use_pitchdrum_tokens=False,
            special_tokens=["EOS"],
        )
    )
