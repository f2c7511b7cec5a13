"""Lists every evaluation: its class, its data file, and the hub dataset that has the same data.

To add a task, write its class in a module beside this one, and its entry in `SOURCES`. This module
names the classes without importing them, so that `--help` and typos are answered at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt2_jax.config import Config
from gpt2_jax.errors import UserError, did_you_mean
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.extras import import_extra
from gpt2_jax.files.paths import local_path

Records = Iterable[Mapping[str, Any]]


class Hub(NamedTuple):
    """Describes a dataset on the Hugging Face hub, and how its records become lines of a file."""

    dataset: str
    config: str | None
    split: str
    lines: Callable[[Records], Iterator[str]]


class Source(NamedTuple):
    """Describes a task and its data.

    Attributes:
      task: `module:attribute` in this package of what makes the task from a `Setting`: its class,
        or a partial application of it.
      file: path inside the data folder, as in the archive that the authors distribute.
      origin: that archive.
      hub: None if no dataset has the same text in a form that `datasets` still reads.
    """

    task: str
    file: str
    origin: str
    hub: Hub | None = None


def _json_lines(*keys: str) -> Callable[[Records], Iterator[str]]:
    def lines(records: Records) -> Iterator[str]:
        for record in records:
            yield json.dumps({key: record[key] for key in keys}, ensure_ascii=False)

    return lines


def _wikitext_lines(records: Records) -> Iterator[str]:
    for record in records:
        # An empty line is " " in the archive, but an empty string in the dataset.
        yield record["text"].removesuffix("\n") or " "


def _cbt_lines(records: Records) -> Iterator[str]:
    for record in records:
        for number, sentence in enumerate(record["sentences"], start=1):
            yield f"{number} {sentence}"
        number = len(record["sentences"]) + 1
        choices = "|".join(record["options"])
        yield f"{number} {record['question']}\t{record['answer']}\t\t{choices}"
        yield ""


def _lambada(task: str) -> Source:
    hub = Hub("EleutherAI/lambada_openai", "default", "test", _json_lines("text"))
    return Source(task, "lambada_test.jsonl", "OpenAI's version of LAMBADA", hub)


def _cbt(task: str, kind: str) -> Source:
    hub = Hub("cam-cst/cbt", kind, "validation", _cbt_lines)
    return Source(task, f"cbtest_{kind}_valid_2000ex.txt", "CBTest.tgz, folder data", hub)


def _wikitext(task: str, name: str) -> Source:
    hub = Hub("Salesforce/wikitext", f"{name}-v1", "test", _wikitext_lines)
    return Source(task, f"{name}/wiki.test.tokens", f"{name}-v1.zip", hub)


_SWAG_KEYS = ("activity_label", "ctx_a", "ctx_b", "endings", "label")


SOURCES: dict[str, Source] = {
    "lambada_openai": _lambada("lambada:Lambada"),
    "lambada_gpt2": _lambada("lambada:LambadaGPT2"),
    "hellaswag": Source(
        "hellaswag:HellaSwag",
        "hellaswag_val.jsonl",
        "the HellaSwag repository",
        Hub("Rowan/hellaswag", None, "validation", _json_lines(*_SWAG_KEYS)),
    ),
    "cbt_cn": _cbt("cloze:COMMON_NOUNS", "CN"),
    "cbt_ne": _cbt("cloze:NAMED_ENTITIES", "NE"),
    "wikitext2": _wikitext("language_modeling:WIKITEXT2", "wikitext-2"),
    "wikitext103": _wikitext("language_modeling:WIKITEXT103", "wikitext-103"),
    "ptb": Source(
        "language_modeling:PTB", "ptb.test.txt", "Mikolov's simple-examples.tgz, folder data"
    ),
    "enwik8": Source("language_modeling:ENWIK8", "enwik8", "mattmahoney.net/dc/enwik8.zip"),
    "text8": Source("language_modeling:TEXT8", "text8", "mattmahoney.net/dc/text8.zip"),
    "lm1b": Source(
        "language_modeling:LM1B",
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
"""Names for several tasks; those that have data are run."""


class Selection(NamedTuple):
    """Holds which tasks of a list can run with the data of a folder.

    Attributes:
      run: the names of the tasks to run.
      groups: the groups in the list.
      missing: the tasks of these groups that have no data.
    """

    run: list[str]
    groups: list[str]
    missing: list[str]


def select(names: str, folder: Path, others: Iterable[str] = ()) -> Selection:
    """Returns which tasks of a list such as `hellaswag,gpt2_paper` have data in a folder.

    Args:
      names: the list, with commas between the names.
      folder: of the data.
      others: what else could have been named, for the message about a name that is unknown.

    Raises:
      UserError: if a name is unknown, a task that is listed by its own name has no data, or no task
        is left.
    """
    run: list[str] = []
    missing: list[str] = []
    requested = _split(names, others)
    for name in requested:
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
    groups = [name for name in requested if name in GROUPS]
    return Selection(list(dict.fromkeys(run)), groups, list(dict.fromkeys(missing)))


def select_of_config(config: Config) -> list[str]:
    """Returns the tasks that `eval.tasks` names, all of which have data in `eval.data`.

    Raises:
      UserError: if a task is unknown or its data is missing.
    """
    if not config.eval.tasks:
        return []
    if config.eval.data is None:
        raise UserError("eval.tasks needs data: name its folder with --config.eval.data=DIR")
    return select(config.eval.tasks, local_path(config.eval.data, "eval.data")).run


def _split(names: str, others: Iterable[str] = ()) -> list[str]:
    """Returns the names of a comma-separated list; raises UserError if one is unknown."""
    known = [*SOURCES, *GROUPS]
    requested = [name.strip() for name in names.split(",") if name.strip()]
    for name in requested:
        if name not in known:
            all_names = [*known, *others]
            hint = did_you_mean(name, all_names) or f"; the tasks are: {', '.join(all_names)}"
            raise UserError(f"unknown task {name!r}{hint}")
    if not requested:
        raise UserError(f"no task was named; the tasks are: {', '.join([*known, *others])}")
    return requested


def _without_data(name: str, folder: Path) -> str:
    """Returns the error message for a task whose file is missing."""
    source = SOURCES[name]
    if folder.exists() and not folder.is_dir():
        return f"{folder} is a file: name the folder that has the data"
    download = ", or run `gpt2-jax eval --download`" if source.hub else ""
    path = folder / source.file
    return f"{name} needs {path}, which is missing: take it from {source.origin}{download}"


def download(names: str, folder: Path, show: Callable[[str], None]) -> None:
    """Downloads the files of these tasks that are missing and that the hub has.

    Args:
      names: a list of tasks, as for `select`.
      folder: the data folder.
      show: called with a line about each file.

    Raises:
      UserError: if a name is unknown, the `eval` extra is not installed, or a dataset cannot be
        read or a file cannot be written.
    """
    members = [member for name in _split(names) for member in GROUPS.get(name, [name])]
    for source in dict.fromkeys(SOURCES[member] for member in members):
        path = folder / source.file
        if source.hub is None or path.is_file():
            continue
        datasets = import_extra("datasets", extra="eval", needed_by="--download")
        hub = source.hub
        show(f"downloading {path} from {hub.dataset}")
        try:
            records: Any = datasets.load_dataset(hub.dataset, hub.config, split=hub.split)
            text = "".join(line + "\n" for line in hub.lines(records))
        except Exception as error:  # the network, the hub and the format have many kinds of errors
            reason = " ".join(str(error).split())
            raise UserError(f"cannot download {hub.dataset}: {reason}") from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, text.encode())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
