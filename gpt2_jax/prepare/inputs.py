"""The user's own text: the files and data sets that `--input` names."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import expand_home
from gpt2_jax.prepare.corpora import Corpus
from gpt2_jax.prepare.formats import FOLDER_SUFFIXES, describe_folder_files, is_plain_text
from gpt2_jax.prepare.hub import HUB, hub_items
from gpt2_jax.prepare.walk import folder_files, matching_files, refuse_unreadable
from gpt2_jax.prepare.work_items import WorkItem, files_items

_TEXT_FIELD = "text"


def read_inputs(
    inputs: Sequence[str | Path], text_field: str = _TEXT_FIELD, skip_invalid: bool = False
) -> Corpus:
    """Returns a corpus of files, folders, patterns and data sets of the hub.

    `formats.FORMATS` lists the formats and what a document is in each. A folder stands for its
    files with the suffixes of these formats, and a pattern for the files that it matches, both as
    `walk` finds them and in sorted order; a file that is named itself or by a pattern may have any
    name. Each file is taken once, whatever links lead to it.

    Args:
      inputs: paths, patterns such as `text/**/*.jsonl.gz`, or `hub:OWNER/NAME[:CONFIG[:SPLIT]]`.
      text_field: the field or column with the text.
      skip_invalid: whether rows (of JSON lines, Parquet and the hub) without valid text are left
        out and counted; otherwise the first one is an error.

    Raises:
      UserError: at once if a path, folder or pattern gives no file or one that cannot be read, or
        if settings of rows are given for plain text alone; when the corpus is read, if a text
        cannot be.
    """
    if "" in map(str, inputs):
        raise UserError("--input has an empty path: name a text file or a folder of them")
    # A string names a data set of the hub, a list has files.
    groups: list[str | list[Path]] = []
    seen: set[Path] = set()
    for name in map(str, inputs):
        if name.startswith(HUB):
            groups.append(name)
            continue
        taken = []
        for path in _files(name):
            if (resolved := path.resolve()) not in seen:
                seen.add(resolved)
                taken.append(path)
        groups.append(taken)
    if not groups:
        raise UserError("--input is empty: name at least one text file or folder")
    if all(isinstance(group, list) and all(map(is_plain_text, group)) for group in groups):
        _refuse_settings_of_rows(text_field, skip_invalid)

    def work_items(item_bytes: int) -> Iterator[WorkItem]:
        for group in _joined(groups):
            if isinstance(group, str):
                yield from hub_items(group, text_field, skip_invalid)
            else:
                yield from files_items(group, item_bytes, text_field, skip_invalid)

    sets = sum(isinstance(group, str) for group in groups)
    counts = [(len(seen), "file", "files"), (sets, "data set of the hub", "data sets of the hub")]
    described = [f"{n:,} {one if n == 1 else more}" for n, one, more in counts if n]
    return Corpus("files", " and ".join(described), work_items)


def input_files(inputs: Sequence[str]) -> list[Path]:
    """Returns the files that paths, folders and patterns stand for, each once.

    Raises:
      UserError: if one gives no file, or is a data set of the hub.
    """
    files: dict[Path, Path] = {}
    for name in inputs:
        if name.startswith(HUB):
            raise UserError(f"--input {name}: examples are read from files *.jsonl: write them")
        for path in _files(name):
            files.setdefault(path.resolve(), path)
    return list(files.values())


def _refuse_settings_of_rows(text_field: str, skip_invalid: bool) -> None:
    """Raises UserError for a setting that has no effect on plain text."""
    given = ["--skip_invalid"] if skip_invalid else []
    if text_field != _TEXT_FIELD:
        given.insert(0, f"--text_field {text_field}")
    if given:
        raise UserError(
            f"{given[0]} is for rows of JSON lines, Parquet files and data sets of the hub, but by "
            "their names all files of --input are plain text, each one document: omit the flag, or "
            "rename a file of JSON lines to *.jsonl"
        )


def _joined(groups: Iterable[str | list[Path]]) -> list[str | list[Path]]:
    """Joins neighbouring lists, so that work items do not depend on how the files were named."""
    joined: list[str | list[Path]] = []
    for group in groups:
        if joined and isinstance(group, list) and isinstance(last := joined[-1], list):
            joined[-1] = last + group
        else:
            joined.append(group)
    return joined


def _files(name: str) -> list[Path]:
    """Returns the files that a word after --input stands for; raises UserError if none."""
    name = expand_home(name, "--input")
    path = Path(name)
    refuse_unreadable(path, "--input ")
    if path.is_dir():
        files = folder_files(path, FOLDER_SUFFIXES)
        if not files:
            raise UserError(
                f"--input {name} is a folder without any {describe_folder_files()}; give the path "
                "of other files, or a pattern"
            )
        return files
    if path.exists():
        return [path]
    if "://" in name:
        raise UserError(
            f"--input {name} must be on a disk or be hub:OWNER/NAME: copy it to a folder first"
        )
    if glob.has_magic(name):
        if files := matching_files(name):
            return files
        raise UserError(f"--input {name} matches no file: quote the pattern, and check its folder")
    raise UserError(f"--input {name} does not exist: name a text file or a folder of them")
