"""Tests the mistakes that `gpt2-jax prepare` refuses: texts, flags, and folders with other data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.refusals import refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input", "missing.txt", "--out", "new"), "missing.txt does not exist"),
        (("--input", "text.txt", "", "--out", "new"), "--input is empty"),
        (("--input", "text.txt", "--out", ""), "--out is empty"),
        (("--input", "run", "--out", "new"), "without any *.txt, *.jsonl"),
        (("--input", "empty.txt", "--out", "new"), "the corpus has no text"),
        (("--input", "latin1.txt", "--out", "new"), "latin1.txt is not UTF-8 text: byte 3 is 0xe9"),
        (("--input", "text.txt", "--out", "new", "--tokenizer", "bpe"), "--tokenizer"),
        (("--input", "text.txt", "--out", "new", "--val_fraction", "1"), "below 1, not 1"),
        (("--input", "text.txt", "--out", "new", "--val_fraction", "-0.1"), "at least 0"),
        (("--input", "text.txt", "--out", "new", "--val_fraction", "nan"), "nan"),
        (("--input", "text.txt", "--out", "new", "--workers", "0"), "workers must be at least 1"),
        (("--input", "text.txt"), "required: --out"),
        (("--input", "text.txt", "--out", "new", "--skip_invalid"), "--skip_invalid is for rows"),
        (
            ("--input", "text.txt", "--out", "new", "--text_field", "a"),
            "--text_field a is for rows",
        ),
        (("--corpus", "python-stdlib", "--out", "new", "--text_field", "a"), "--text_field is for"),
        (("--out", "new"), "exactly one of --input PATH... or --corpus NAME"),
        (("--input", "text.txt", "--corpus", "python-stdlib", "--out", "new"), "exactly one"),
        (("--corpus", "pyhton-stdlib", "--out", "new"), "did you mean 'python-stdlib'?"),
        # Folders that hold something already.
        (("--input", "text.txt", "--out", "data", "--tokenizer", "char"), "holds other data"),
        (("--input", "other.txt", "--out", "data", "--tokenizer", "byte"), "holds other data"),
        (("--input", "text.txt", "--out", "run"), "is not prepared data"),
        (("--input", "text.txt", "--out", "text.txt"), "--out text.txt is a file: name a folder"),
        (
            ("--input", "text.txt", "--out", "text.txt/a/b"),
            "--out text.txt/a/b: text.txt is a file",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_prepare_refuses(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    Path("empty.txt").write_bytes(b"")
    Path("latin1.txt").write_bytes("café".encode("latin-1"))
    Path("other.txt").write_text("another text", encoding="utf-8")
    if "--tokenizer" not in words:
        words = (*words, "--tokenizer", "byte")
    assert message in refused(house, capsys, "prepare", *words)
