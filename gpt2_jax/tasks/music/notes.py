"""The notes of a piece on the grid of sixteenths: the form between MIDI files and events."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

STEPS = 4
"""Steps of the grid in a quarter note: sixteenths."""


class Note(NamedTuple):
    """Holds a note; times are in steps."""

    start: int
    pitch: int
    length: int

    @property
    def stop(self) -> int:
        """Returns the step at which it is no longer heard."""
        return self.start + self.length


class Meter(NamedTuple):
    """Says how long bars are from some step on; an upbeat is a short first bar that files hide."""

    start: int
    bar: int
    """Steps of a bar."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """Holds what is used of a file.

    Attributes:
      name: names the file in messages.
      notes: of all voices as one instrument plays them, in order; no pitch sounds twice at a time.
      melody: pitches of the first voice.
      meters: lengths of bars, from the first step on.
    """

    name: str
    notes: tuple[Note, ...]
    melody: tuple[int, ...]
    meters: tuple[Meter, ...] = (Meter(0, 4 * STEPS),)

    def bars(self, stop: int) -> list[int]:
        """Returns the steps before `stop` at which bars begin."""
        found = []
        ends = [*(meter.start for meter in self.meters[1:]), stop]
        for meter, end in zip(self.meters, ends, strict=True):
            found += range(meter.start, min(end, stop), meter.bar)
        return found


def merged(voices: Iterable[Sequence[Note]]) -> tuple[Note, ...]:
    """Returns the notes of all voices, by start and pitch, with no pitch sounding twice at a time.

    Voices meet on a pitch. A note-off names a pitch and not a note, so of two such notes one would
    get the other's length. Those that start together become one, as long as the longer; a note
    that another voice still holds is struck again, and the held note ends there.
    """
    by_pitch: dict[int, list[Note]] = defaultdict(list)
    for note in sorted(note for voice in voices for note in voice):
        same = by_pitch[note.pitch]
        if same and same[-1].start == note.start:
            same[-1] = same[-1]._replace(length=max(same[-1].length, note.length))
        elif same and same[-1].stop > note.start:
            stop = max(same[-1].stop, note.stop)
            same[-1] = same[-1]._replace(length=note.start - same[-1].start)
            same.append(note._replace(length=stop - note.start))
        else:
            same.append(note)
    return tuple(sorted(note for same in by_pitch.values() for note in same))
