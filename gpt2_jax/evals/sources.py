"""Where each evaluation's data is: a file of the data folder, and the hub dataset that has it too.

Imports nothing heavy, so that a command line is answered at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt2_jax.errors import UserError, did_you_mean

Rows = Iterable[Mapping[str, Any]]


class Hub(NamedTuple):
    """A dataset on the Hugging Face hub: id, configuration, split, and how its rows are written."""

    dataset: str
    config: str | None
    split: str
    lines: Callable[[Rows], Iterator[str]]


class Source(NamedTuple):
    """A task's data.

    Attributes:
      file: path inside the data folder, as in the archive that the authors distribute.
      origin: that archive.
      hub: None where no dataset has the same text in a form that `datasets` still reads.
    """

    file: str
    origin: str
    hub: Hub | None = None


def _json_lines(*keys: str) -> Callable[[Rows], Iterator[str]]:
    def lines(rows: Rows) -> Iterator[str]:
        for row in rows:
            yield json.dumps({key: row[key] for key in keys}, ensure_ascii=False)

    return lines


def _wikitext(rows: Rows) -> Iterator[str]:
    for row in rows:
        # Empty lines are " " in the archive, and nothing here.
        yield row["text"].removesuffix("\n") or " "


def _cbt(rows: Rows) -> Iterator[str]:
    for row in rows:
        for number, sentence in enumerate(row["sentences"], start=1):
            yield f"{number} {sentence}"
        number = len(row["sentences"]) + 1
        yield f"{number} {row['question']}\t{row['answer']}\t\t{'|'.join(row['options'])}"
        yield ""


_LAMBADA = Source(
    "lambada_test.jsonl",
    "OpenAI's version of LAMBADA",
    Hub("EleutherAI/lambada_openai", "default", "test", _json_lines("text")),
)
_SWAG_KEYS = ("activity_label", "ctx_a", "ctx_b", "endings", "label")


def _childrens(kind: str) -> Source:
    hub = Hub("cam-cst/cbt", kind, "validation", _cbt)
    return Source(f"cbtest_{kind}_valid_2000ex.txt", "CBTest.tgz, folder data", hub)


def _wiki(name: str) -> Source:
    hub = Hub("Salesforce/wikitext", f"{name}-v1", "test", _wikitext)
    return Source(f"{name}/wiki.test.tokens", f"{name}-v1.zip", hub)


SOURCES: dict[str, Source] = {
    "lambada_openai": _LAMBADA,
    "lambada_gpt2": _LAMBADA,
    "hellaswag": Source(
        "hellaswag_val.jsonl",
        "the HellaSwag repository",
        Hub("Rowan/hellaswag", None, "validation", _json_lines(*_SWAG_KEYS)),
    ),
    "cbt_cn": _childrens("CN"),
    "cbt_ne": _childrens("NE"),
    "wikitext2": _wiki("wikitext-2"),
    "wikitext103": _wiki("wikitext-103"),
    "ptb": Source("ptb.test.txt", "Mikolov's simple-examples.tgz, folder data"),
    "enwik8": Source("enwik8", "mattmahoney.net/dc/enwik8.zip"),
    "text8": Source("text8", "mattmahoney.net/dc/text8.zip"),
    "lm1b": Source(
        "news.en.heldout-00000-of-00050",
        "the One Billion Word benchmark, folder heldout-monolingual.tokenized.shuffled",
    ),
}
"""Every task by name."""

GROUPS: dict[str, Sequence[str]] = {
    "gpt2_paper": (
        *("lambada_gpt2", "cbt_cn", "cbt_ne", "wikitext2", "ptb"),
        *("enwik8", "text8", "wikitext103", "lm1b"),
    )
}
"""Names for several tasks, of which those run that have data."""


class Selection(NamedTuple):
    """What a list of tasks comes to in a data folder.

    Attributes:
      run: tasks by name.
      groups: those that were asked for.
      missing: their tasks that have no data.
    """

    run: list[str]
    groups: list[str]
    missing: list[str]


def select(names: str, folder: Path) -> Selection:
    """Finds the data of a list such as `hellaswag,gpt2_paper`.

    Raises:
      UserError: for an unknown name, a task by its own name without data, or no task at all.
    """
    run: list[str] = []
    missing: list[str] = []
    asked = _split(names)
    for name in asked:
        for member in GROUPS.get(name, [name]):
            if (folder / SOURCES[member].file).is_file():
                run.append(member)
            elif name in GROUPS:
                missing.append(member)
            else:
                raise UserError(_without_data(member, folder))
    if not run:
        files = sorted({SOURCES[name].file for name in missing})
        raise UserError(f"{folder} has none of the files of {names}: {', '.join(files)}")
    groups = [name for name in asked if name in GROUPS]
    return Selection(list(dict.fromkeys(run)), groups, list(dict.fromkeys(missing)))


def _split(names: str) -> list[str]:
    """The names of a list; UserError for an unknown one or none."""
    known = [*SOURCES, *GROUPS]
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are: {', '.join(known)}"
            raise UserError(f"unknown task {name!r}{hint}")
    if not asked:
        raise UserError(f"no task named; there are: {', '.join(known)}")
    return asked


def _without_data(name: str, folder: Path) -> str:
    source = SOURCES[name]
    if folder.exists() and not folder.is_dir():
        return f"{folder} is a file: name the folder that has the data"
    get = ", or let `gpt2-jax eval --download` get it" if source.hub else ""
    path = folder / source.file
    return f"{name} needs {path}, which is not there: take it from {source.origin}{get}"


def download(names: str, folder: Path, show: Callable[[str], None]) -> None:
    """Writes the files of these tasks that are not there and that the hub has.

    Args:
      names: as `select` takes them.
      show: told of each file.

    Raises:
      UserError: for an unknown name, without the `eval` extra, or where a dataset can't be read.
    """
    members = [member for name in _split(names) for member in GROUPS.get(name, [name])]
    for source in dict.fromkeys(SOURCES[member] for member in members):
        path = folder / source.file
        if source.hub is None or path.is_file():
            continue
        try:
            import datasets  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(
                "--download needs the package datasets: pip install 'gpt2_jax[eval]'"
            ) from error
        hub = source.hub
        show(f"{path}: from {hub.dataset}")
        try:
            rows: Any = datasets.load_dataset(hub.dataset, hub.config, split=hub.split)
            text = "".join(line + "\n" for line in hub.lines(rows))
        except Exception as error:  # of the network, the hub and the format, of many kinds
            reason = " ".join(str(error).split())
            raise UserError(f"can't get {hub.dataset}: {reason}") from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".tmp")
            temporary.write_text(text, encoding="utf-8", newline="\n")
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"can't write {path}: {error.strerror}") from error
