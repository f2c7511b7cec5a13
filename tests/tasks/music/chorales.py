"""Small pieces of music in MIDI files, seeded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from gpt2_jax.tasks.music.notes import Note

SCALE = (60, 62, 64, 65, 67, 69, 71, 72)


def voice(seed: int, count: int = 24, below: int = 0, length: int = 4) -> list[Note]:
    """Returns notes of C major, one after the other."""
    rng = random.Random(seed)
    return [Note(i * length, rng.choice(SCALE) - below, length) for i in range(count)]


def write_voices(
    path: Path, voices: Sequence[Sequence[Note]], ticks: int = 480, bar: int = 4
) -> None:
    """Writes a file with a track for each voice by mido, which the package does not write with."""
    import mido

    file = mido.MidiFile(ticks_per_beat=ticks)
    step = ticks // 4
    for notes in voices:
        track = mido.MidiTrack()
        track.append(mido.MetaMessage("time_signature", numerator=bar, denominator=4, time=0))
        events = [(note.start * step, 1, note.pitch) for note in notes]
        events += [(note.stop * step, 0, note.pitch) for note in notes]
        now = 0
        for time, on, pitch in sorted(events):
            kind = "note_on" if on else "note_off"
            track.append(mido.Message(kind, note=pitch, velocity=90 * on, time=time - now))
            now = time
        file.tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(path)


def write_folder(folder: Path, count: int = 12) -> Path:
    """Writes pieces of two voices and returns the folder."""
    for seed in range(count):
        voices = [voice(seed), voice(seed + 100, below=12)]
        write_voices(folder / f"{seed:02d}.mid", voices)
    return folder
