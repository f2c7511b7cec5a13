"""Tests music from a folder of files to shards, scores and continuations."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import gpt2_jax
from gpt2_jax.cli.main import main
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.formats.load import load
from gpt2_jax.tasks.base import Settings
from gpt2_jax.tasks.music import task as music
from gpt2_jax.tasks.music.events import decode, vocabulary
from gpt2_jax.tasks.music.midi import read_midi
from gpt2_jax.tasks.music.task import Music, read_documents
from tests.inference.tiny import make_run, tiny_config
from tests.tasks.music.chorales import write_folder

KNOWN = vocabulary()


@pytest.fixture(scope="module")
def midi(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("music") / "midi")


@pytest.fixture(scope="module")
def data(midi):
    out = midi.parent / "data"
    words = ["prepare", "--task", "music", "--input", str(midi), "--out", str(out)]
    assert main([*words, "--workers", "1"]) == 0
    return out


@pytest.fixture(scope="module")
def run(midi):
    sizes = {"num_layers": 1, "num_heads": 2, "d_model": 16, "scan_unroll": 1}
    config = tiny_config(KNOWN, context_length=96, position="relative", **sizes)
    return make_run(midi.parent / "run", config, KNOWN)


def test_shards_have_every_piece_and_train_every_key(midi, data, capsys):
    found = {split: read_documents(data, split) for split in ("train", "val", "test")}
    assert {split: len(each) for split, each in found.items()} == {
        "train": 8 * 12,
        "val": 2,
        "test": 2,
    }
    expected = {tuple(read_midi(path).notes) for path in midi.iterdir()}
    held_out = [
        decode([KNOWN.words[token] for token in each]).notes
        for split in ("val", "test")
        for each in found[split]
    ]
    assert set(held_out) < expected and len(set(held_out)) == 4
    # The same command finds its work done; other settings are refused.
    words = ["prepare", "--task", "music", "--input", str(midi), "--out", str(data)]
    assert main(words) == 0 and "already prepared" in capsys.readouterr().out
    assert main([*words, "--val_fraction", "0.3"]) == 2
    assert "already holds other data" in capsys.readouterr().err
    with pytest.raises(UserError, match="split must be train or val, or one that"):
        open_tokens(data, "tests")


def test_nats_are_those_of_each_piece_alone(data, run):
    model, alone = load(run), gpt2_jax.load(run)
    pieces = [each[:70] for each in read_documents(data, "test")]
    per_note, per_token = music.nats(model, pieces)
    for i, piece in enumerate(pieces):
        expected = -sum(alone.score([KNOWN.eot, *piece.tolist(), KNOWN.eot]).logprobs)
        onsets = sum(KNOWN.words[token].startswith("NoteOn") for token in piece)
        np.testing.assert_allclose(per_note.values[i], [expected, onsets], rtol=1e-4)
        np.testing.assert_allclose(per_token.values[i], [expected, len(piece) + 1], rtol=1e-4)


@pytest.mark.slow
def test_evaluation_scores_and_continues(data, run, tmp_path):
    task = Music()
    task.decoding = dataclasses.replace(task.decoding, max_new_tokens=24)
    found = task.evaluate(load(run), data, Settings(split="test", folder=tmp_path))
    assert found["count"] == 2 and found["parses"] == 1
    assert found["nats_per_note"] > found["nats_per_token"] > 0
    for name in ("key", "meter"):
        assert -1 <= found[name] <= 1 and 0 < found[f"{name}_p"] <= 1
        assert -1 <= found[f"{name}_chance"] <= 1
    assert len((tmp_path / "music.jsonl").read_text().splitlines()) == 3


def test_prompts_and_the_rest_are_the_piece(data):
    task = Music()
    for record in task.read(data, "val"):
        prompt, rest = task.format(record)
        assert KNOWN.encode(prompt + rest) == list(record["events"])
        notes, more = music.continued(prompt.split(), rest.split())
        assert max(note.start for note in notes) < 48 <= min(note.start for note in more)


def test_other_models_and_folders_are_refused(data, tmp_path):
    other = load(make_run(tmp_path / "run"))
    with pytest.raises(UserError, match="the model's tokens are not events but byte"):
        Music().evaluate(other, data, Settings())
    with pytest.raises(UserError, match="has no test split of music"):
        read_documents(tmp_path, "test")
    with pytest.raises(UserError, match="file: name a folder with some"):
        Music().prepare(tmp_path, None, tmp_path / "x", val_fraction=0.1, workers=1, log=print)
    with pytest.raises(UserError, match="val_fraction must be above 0 and below 0"):
        Music().prepare(tmp_path, None, tmp_path / "x", val_fraction=0, workers=1, log=print)


def test_flags_without_a_meaning_for_music_are_refused(midi, tmp_path, capsys):
    words = ["prepare", "--task", "music", "--out", str(tmp_path / "x")]
    for flags in (["--tokenizer", "byte"], ["--fraction", "0.5"], ["--engine", "ray"]):
        assert main([*words, "--input", str(midi), *flags]) == 2
        assert f"{flags[0]} does not apply to --task music: omit it" in capsys.readouterr().err
    assert main([*words, "--input", str(tmp_path / "none")]) == 2
    assert "none does not exist: name a folder with MIDI" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_sample_continues_a_file(midi, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = sorted(midi.iterdir())[0]
    words = ["sample", "--model", str(run), "--prompt_midi", str(source), "--out", "new.mid"]
    words += ["--prompt_beats", "4", "--max_new_tokens", "24"]
    assert main([*words, "--piano_roll", "new.png"]) == 0
    out = capsys.readouterr().out
    # Two voices begin a note on each of four beats.
    given = [note for note in read_midi(source).notes if note.start < 16]
    assert f"{len(given)} notes given, in " in out
    assert re.search(r"cut after [\d.]+ quarter notes, at --max_new_tokens 24\n", out)
    # Those of the last beat end where the model ends them.
    assert read_midi("new.mid").notes[: len(given) - 2] == tuple(given[:-2])
    assert (tmp_path / "new.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt_midi", "a.mid"], "--prompt_midi needs --out FILE.mid"),
        (["--prompt_midi", "a.mid", "--out", "a.txt"], "--out must end in .mid, not 'a.txt'"),
        (["--prompt_midi", "a.mid", "--out", "b.mid", "--json"], "--json is for text"),
        (["--prompt_midi", "a.mid", "--out", "b.mid", "--num_samples", "2"], "writes one file"),
        (["--prompt_midi", "a.mid", "--out", "b.mid", "--prompt_beats", "0"], "must be at least 1"),
        (["--prompt_midi", "a.mid", "--out", "b.mid"], "cannot read a.mid"),
        (["--prompt_midi", "a.mid", "--out", "./a.mid"], "is the file of --prompt_midi"),
        (["--piano_roll", "a.png"], "--piano_roll is for --prompt_midi FILE"),
        (["--prompt_beats", "3"], "--prompt_beats is for --prompt_midi FILE"),
    ],
)
def test_wrong_flags_are_named(run, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "--model", str(run), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_prompt_of_words_is_shown_apart_from_what_follows(run, capsys):
    words = ["--prompt", "NoteOn_60  NoteOn_64", "--max_new_tokens", "2"]
    assert main(["sample", "--model", str(run), *words]) == 0
    assert capsys.readouterr().out.startswith("NoteOn_60 NoteOn_64 ")


def test_a_model_of_text_continues_no_music(midi, tmp_path, capsys):
    model = make_run(tmp_path / "run")
    source = sorted(midi.iterdir())[0]
    words = ["--prompt_midi", str(source), "--out", str(tmp_path / "a.mid")]
    assert main(["sample", "--model", str(model), *words]) == 2
    assert "has byte tokens" in capsys.readouterr().err
