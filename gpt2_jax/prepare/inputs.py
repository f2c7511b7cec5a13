"""The reader's own text: what the words after --input name."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.corpora import Corpus
from gpt2_jax.prepare.hub import HUB, hub_parts
from gpt2_jax.prepare.work_items import Part, files_in_parts

# Taken from folders; what is named itself, or by a pattern, may be called anything.
_IN_FOLDERS = tuple(
    name + compression
    for name, compressions in {
        ".txt": ("", ".gz", ".zst"),
        ".jsonl": ("", ".gz", ".zst"),
        ".parquet": ("",),
    }.items()
    for compression in compressions
)


def read_inputs(inputs: Sequence[str | Path], text_field: str = "text") -> Corpus:
    """Files, folders, patterns and data sets of the hub as a corpus.

    A file of plain text is one document, its bytes unchanged (no newline translation); a line of
    JSON lines or a row of a Parquet file is one. A folder gives its files of those formats, and a
    pattern what it matches, in sorted order; each file is taken once.

    Args:
      inputs: paths, patterns such as `text/**/*.jsonl.gz`, or `hub:OWNER/NAME[:CONFIG[:SPLIT]]`.
      text_field: the field of JSON lines, or the column, with the text.

    Raises:
      UserError: at once for a path, folder or pattern that gives no file; for text that can't be
        read when it is.
    """
    if "" in map(str, inputs):
        raise UserError("--input names an empty path: name a text file or a folder of them")
    groups: list[str | list[Path]] = []
    seen: set[Path] = set()
    for name in map(str, inputs):
        if name.startswith(HUB):
            groups.append(name)
            continue
        files = {path.resolve(): path for path in _files(name)}
        groups.append([path for place, path in files.items() if place not in seen])
        seen |= files.keys()
    if not groups:
        raise UserError("--input names no files: give at least one text file or folder")

    def parts(part_bytes: int) -> Iterator[Part]:
        for group in _joined(groups):
            if isinstance(group, str):
                yield from hub_parts(group, text_field)
            else:
                yield from files_in_parts(group, part_bytes, text_field)

    return Corpus("files", f"{len(seen)} files", parts)


def _joined(groups: Iterable[str | list[Path]]) -> list[str | list[Path]]:
    """Neighbouring lists as one, so that how the files were named does not show."""
    joined: list[str | list[Path]] = []
    for group in groups:
        if joined and isinstance(group, list) and isinstance(last := joined[-1], list):
            joined[-1] = last + group
        else:
            joined.append(group)
    return joined


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        files = [p for p in path.rglob("*") if p.name.lower().endswith(_IN_FOLDERS) and p.is_file()]
        if not files:
            raise UserError(
                f"--input {name} is a folder without any *.txt, *.jsonl (these also with .gz or "
                ".zst) or *.parquet file in it; name other files themselves, or by a pattern"
            )
        return sorted(files, key=Path.as_posix)
    if path.exists():
        return [path]
    if glob.has_magic(name):
        found = sorted(map(Path, glob.iglob(name, recursive=True)), key=Path.as_posix)
        if files := [path for path in found if path.is_file()]:
            return files
        raise UserError(f"--input {name} matches no file: quote the pattern, and mind its folder")
    if "://" in name:
        raise UserError(
            f"--input {name}: prepare reads disks and hub:OWNER/NAME; copy it to a folder"
        )
    raise UserError(f"--input {name} does not exist: name a text file or a folder of them")
