"""Reads and writes MIDI files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.extras import import_extra
from gpt2_jax.tasks.music.events import score_of
from gpt2_jax.tasks.music.notes import STEPS, Meter, Note, Piece, merged

SUFFIXES = (".mid", ".midi")


def read_midi(path: str | Path) -> Piece:
    """Returns the piece in a MIDI file, on the grid of sixteenths.

    Tracks without notes and drums are left out. A note shorter than half a step gets one step.

    Raises:
      UserError: if the file cannot be read, is not MIDI or has no notes.
    """
    symusic = import_extra("symusic", extra="tasks", needed_by="music")
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): name a MIDI file") from None
    if not content.startswith(b"MThd"):
        raise UserError(f"{path} is not a MIDI file")
    try:
        score = symusic.Score.from_midi(content).resample(STEPS, min_dur=1)
    except Exception as error:  # symusic raises what its parser does, of several kinds
        raise UserError(f"the MIDI file {path} is damaged ({error!s:.80})") from None
    voices = [
        sorted(Note(note.time, note.pitch, note.duration) for note in track.notes)
        for track in score.tracks
        if len(track.notes) and not track.is_drum
    ]
    if not voices:
        raise UserError(f"{path} has no notes, or of drums alone: name a file with notes")
    melody = tuple(note.pitch for note in voices[0])
    return Piece(path.name, merged(voices), melody, _meters(score))


def midi_bytes(notes: Iterable[Note], meters: Sequence[Meter] = ()) -> bytes:
    """Returns a MIDI file of the notes, played by a piano at 120 quarters a minute."""
    symusic = import_extra("symusic", extra="tasks", needed_by="music")
    score = score_of(notes)
    score.tempos.append(symusic.Tempo(0, 120.0))
    for meter in meters:
        beats, unit = (meter.bar // STEPS, 4) if meter.bar % STEPS == 0 else (meter.bar, 4 * STEPS)
        score.time_signatures.append(symusic.TimeSignature(meter.start, beats, unit))
    # Readers of MIDI expect many ticks a quarter.
    return score.resample(480, min_dur=1).dumps_midi()


def write_midi(path: str | Path, notes: Iterable[Note], meters: Sequence[Meter] = ()) -> None:
    """Writes what `midi_bytes` returns."""
    write_file(Path(path), midi_bytes(notes, meters))


def _meters(score: Any) -> tuple[Meter, ...]:
    """Returns the changes of time signature, which files repeat for each of their tracks."""
    meters = {0: 4 * STEPS}
    for each in score.time_signatures:
        meters[each.time] = max(1, 4 * STEPS * each.numerator // each.denominator)
    found: list[Meter] = []
    for start, bar in sorted(meters.items()):
        if not found or found[-1].bar != bar:
            found.append(Meter(start, bar))
    return tuple(found)
