"""Tests MIDI files, which another library writes and reads too."""

from __future__ import annotations

import io

import mido
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.tasks.music.midi import midi_bytes, read_midi, write_midi
from gpt2_jax.tasks.music.notes import Meter, Note
from tests.tasks.music.chorales import voice, write_voices


@pytest.mark.parametrize("ticks", [480, 10080])
def test_voices_are_read_on_the_grid(tmp_path, ticks):
    soprano, bass = voice(0), voice(1, below=24)
    write_voices(tmp_path / "a.mid", [[], soprano, [], bass], ticks, bar=3)
    piece = read_midi(tmp_path / "a.mid")
    assert piece.name == "a.mid" and piece.meters == (Meter(0, 12),)
    assert piece.notes == tuple(sorted([*soprano, *bass]))
    assert piece.melody == tuple(note.pitch for note in soprano)


def test_what_is_written_is_read_again(tmp_path):
    notes, meters = tuple(sorted(voice(0))), (Meter(0, 12), Meter(24, 16), Meter(40, 6))
    write_midi(tmp_path / "a.mid", notes, meters)
    piece = read_midi(tmp_path / "a.mid")
    assert piece.notes == notes and piece.meters == meters


def test_mido_reads_the_same_notes():
    notes = [Note(0, 60, 4), Note(2, 64, 8), Note(4, 60, 1)]
    file = mido.MidiFile(file=io.BytesIO(midi_bytes(notes)))
    begun, found, now = {}, [], 0
    for message in mido.merge_tracks(file.tracks):
        now += message.time
        if message.type == "note_on" and message.velocity:
            begun[message.note] = now
        elif message.type in ("note_on", "note_off"):
            found.append((begun[message.note], message.note, now - begun[message.note]))
    step = file.ticks_per_beat // 4
    assert sorted(found) == [(n.start * step, n.pitch, n.length * step) for n in notes]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a MIDI file"),
        (b"MThd plus noise", "is damaged"),
        (None, "cannot read"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.mid").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_midi(tmp_path / "a.mid")


def test_a_file_without_notes_is_refused(tmp_path):
    write_voices(tmp_path / "a.mid", [[], []])
    with pytest.raises(UserError, match="has no notes"):
        read_midi(tmp_path / "a.mid")
