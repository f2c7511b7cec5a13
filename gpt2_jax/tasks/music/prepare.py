"""Turns a folder of MIDI files into token shards: `gpt2-jax prepare --task music`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.splits import prepare_splits
from gpt2_jax.prepare.walk import folder_files
from gpt2_jax.tasks.music.events import vocabulary
from gpt2_jax.tasks.music.midi import SUFFIXES, read_midi
from gpt2_jax.tasks.music.notes import Piece
from gpt2_jax.tasks.music.splits import TRANSPOSITIONS, documents, split


def read_pieces(inputs: Sequence[str | Path]) -> list[Piece]:
    """Returns the pieces of MIDI files and of folders of them, at any depth, in sorted order.

    Raises:
      UserError: if a file cannot be read, or there is none.
    """
    files: list[Path] = []
    for path in map(Path, inputs):
        if not path.exists():
            raise UserError(f"--input {path} does not exist: name a folder with MIDI files")
        files += folder_files(path, SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise UserError(
            f"--input {' '.join(map(str, inputs))} has no *{' or *'.join(SUFFIXES)} file: name a "
            "folder with some"
        )
    return [read_midi(file) for file in files]


def prepare_music(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    val_fraction: float = 0.1,
    workers: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes the splits train, val and test of pieces as token shards; a piece is a document.

    No melody is in two splits. The pieces of train are there in all twelve keys.

    Args:
      inputs: MIDI files, and folders of them.
      out: the folder to make.
      val_fraction: the least share of the pieces in val, and in test.
      workers, log: see `prepare`.

    Returns:
      What `prepare` returns.

    Raises:
      UserError: for a file that is not MIDI, a pitch that no piano has, or too few pieces.
    """
    if not 0 < val_fraction < 0.5:
        raise UserError(
            f"val_fraction must be above 0 and below 0.5 with --task music, not {val_fraction:g}: "
            "it is the share of the pieces in each of val and test"
        )
    pieces = read_pieces(inputs)
    parts = split(pieces, val_fraction)
    log(", ".join(f"{name}: {len(part)} pieces" for name, part in parts.items()))
    texts = {
        name: documents(part, TRANSPOSITIONS if name == "train" else (0,))
        for name, part in parts.items()
    }
    return prepare_splits(texts, vocabulary(), out, corpus="music", workers=workers, log=log)
