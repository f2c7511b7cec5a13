"""Tests a mistake that several verbs refuse, a wrong flag of `doctor`, and what --debug adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from tests.cli.refusals import TRAIN, refused


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "--model", "run", "--to", "hf", "--out", "text.txt/a"),
        ("eval", "--model", "run", "--text", "text.txt", "--out", "text.txt/a"),
        ("eval", "--model", "run", "--tasks", "ptb", "--data", "text.txt/a"),
        ("train", "--config", "tiny.py", "--workdir", "text.txt/a"),
    ],
    ids=lambda words: f"{words[0]} {words[-2]}",
)
def test_a_folder_below_a_file_is_refused(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    err = refused(house, capsys, *words)
    assert f"{words[-2]} text.txt/a: text.txt is a file; name a folder elsewhere" in err


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "--model", "run", "--tasks", "hellaswag", "--data", "gs://bucket/x"),
        ("eval", "--model", "run", "--text", "gs://bucket/x"),
        ("sample", "--model", "run", "--prompt_file", "gs://bucket/x"),
        ("prepare", "--out", "new", "--input", "gs://bucket/x"),
        ("prepare", "--out", "new", "--input", "gs://bucket/*.x"),
        ("prepare", "--input", "text.txt", "--out", "gs://bucket/x"),
        ("convert", "--model", "run", "--to", "hf", "--out", "gs://bucket/x"),
        ("train", "--workdir", "new", "--config", "gs://bucket/x.py"),
        (*TRAIN, "--config.eval.tasks=hellaswag", "--config.eval.data=gs://bucket/x"),
    ],
    ids=" ".join,
)
def test_what_is_read_only_from_a_disk_is_named_as_it_was_given(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    error = refused(house, capsys, *words)
    name = words[-1].rpartition("=")[2]
    assert f" {name} must be on a disk" in error


def test_doctor_refuses_what_it_does_not_know(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean '--json'?" in refused(house, capsys, "doctor", "--jsn")


def test_debug_adds_the_traceback(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--debug", "--config.data.path=missing"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("error: no data folder missing")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--config", "tiny.py", "--config", "b.py"), "--config is given twice"),
        (
            ("train", "--config=tiny.py", "--workdir=new", "--workdir", "b"),
            "--workdir is given twice",
        ),
        (
            ("eval", "--model", "run", "--text", "text.txt", "--text", "tiny.py"),
            "only the last would count: write all values after one --text",
        ),
        (("sample", "--model=run", "--top-k=3", "--top_k=4"), "--top_k is given twice"),
        (
            ("eval", "--model", "run", "--text", "text.txt", "--download"),
            "--download needs --tasks",
        ),
        (
            ("eval", "--model", "run", "--text", "text.txt", "--data", "data"),
            "--data needs --tasks",
        ),
    ],
)
def test_a_value_that_would_have_no_effect_is_refused(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert message in refused(house, capsys, *words)
