"""Lines of JSON as examples, and what a task does with the examples of one work item.

As for documents, an item's tokens are in `<key>.tokens` and its totals in `<key>.json`, which is
written last; `<key>.index` is the array of `data.examples.INDEX` of its examples.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt2_jax.config.fields import TEXT_FIELD, Fields
from gpt2_jax.data.examples import INDEX, digest
from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.errors import UserError, shortened
from gpt2_jax.files.atomic import open_atomic, write_file
from gpt2_jax.prepare.encode import ItemTotals
from gpt2_jax.prepare.json_lines import Line, read_objects
from gpt2_jax.prepare.pieces import InvalidRowError, checked_text
from gpt2_jax.prepare.slices import Slice, reading
from gpt2_jax.prepare.work_items import item_key
from gpt2_jax.tokenizers.tokenizer import Tokenizer, tokenizer_from_dict


class Example(NamedTuple):
    """Holds the texts of a line; the prompt of one that teaches all of its text is empty."""

    prompt: str
    answer: str


class SliceLines(NamedTuple):
    """Counts the lines and the examples of one slice of a file."""

    path: str
    begins_file: bool
    lines: int
    examples: int


@dataclasses.dataclass(frozen=True)
class ExamplesItem:
    """Names slices of files of JSON lines, which are read where the task runs.

    Attributes:
      slices: the slices.
      fields: of the lines.
      sums: the sha256 of each slice's file, if the files are written anew by every run.
    """

    slices: tuple[Slice, ...]
    fields: Fields
    sums: tuple[str, ...] = ()

    def identity(self) -> Any:
        """Returns the paths, sizes and times of the files, and which slices of them are meant.

        Files that are written anew by every run are known by their sums instead.
        """
        if self.sums:
            pairs = zip(self.sums, self.slices, strict=True)
            contents = [[content, each.start, each.stop] for content, each in pairs]
            return {"contents": contents, "examples": list(self.fields)}
        files = [dataclasses.astuple(each) for each in self.slices]
        return {"files": files, "examples": list(self.fields)}


def parse_example(line: Line, fields: Fields) -> Example:
    """Returns the texts of a line.

    Raises:
      UserError: naming the line, if it has none, or they are not valid.
    """
    try:
        values = line.values
        if line.problem is not None or values is None:
            raise line.problem or InvalidRowError("is blank")
        if TEXT_FIELD in values and TEXT_FIELD not in fields and not {*fields} & {*values}:
            text = checked_text(values[TEXT_FIELD], TEXT_FIELD)
            if not text:
                raise InvalidRowError(f"has an empty {TEXT_FIELD!r}, with nothing to learn")
            return Example("", text)
        if missing := [name for name in fields if name not in values]:
            raise InvalidRowError(
                f"has no field {missing[0]!r} (its fields: {shortened(', '.join(values), 80)}); "
                f"name the fields as in data.fields=prompt:NAME,answer:NAME"
            )
        prompt, answer = (checked_text(values[name], name) for name in fields)
        if not answer:
            raise InvalidRowError(f"has an empty answer ({fields.answer!r}): remove the line")
    except InvalidRowError as error:
        raise UserError(f"{line.where}, {error}") from None
    return Example(prompt, answer)


def encode_examples(item: ExamplesItem, *, tokenizer: str, folder: str) -> ItemTotals:
    """Writes the tokens and the index of an item's examples.

    Args:
      item: what to encode.
      tokenizer: JSON of `Tokenizer.to_dict()`.
      folder: the folder for the item's files.

    Raises:
      UserError: naming the line that is no example or cannot be encoded.
    """
    encoder = _tokenizer(tokenizer)
    end = np.array([encoder.eot], TOKEN_DTYPE)
    # What a text begins from that has no prompt, in generation too.
    no_prompt = np.array([encoder.bos], TOKEN_DTYPE)
    records: list[tuple[int, int, int, int]] = []
    counts: list[SliceLines] = []
    summed = hashlib.sha256()
    tokens = size = 0
    name = item_key(item, tokenizer)
    with open_atomic(Path(folder, f"{name}.tokens")) as file:
        for line, example in _examples(item, counts):
            try:
                prompt, answer = map(encoder.encode_array, example)
            except UserError as error:
                raise UserError(f"{line.where}: {error}") from None
            if not len(prompt):
                prompt = no_prompt
            records.append((tokens, tokens + len(prompt), line.number, digest(prompt, answer)))
            joined = np.concatenate([prompt, answer, end]).astype(TOKEN_DTYPE, copy=False)
            file.write(joined.data)
            tokens += len(joined)
            size += _add(summed, example)
    index = np.array(records, INDEX)
    write_file(Path(folder, f"{name}.index"), index.tobytes())
    totals = ItemTotals(tokens, size, len(index), summed.hexdigest())
    record = {**totals._asdict(), "starts": index["start"].tolist(), "slices": counts}
    write_file(Path(folder, f"{name}.json"), json.dumps(record).encode())
    return totals


def digest_examples(item: ExamplesItem) -> str:
    """Returns the sha256 that `encode_examples` would give, without encoding."""
    summed = hashlib.sha256()
    for _, example in _examples(item, []):
        _add(summed, example)
    return summed.hexdigest()


def texts(items: Iterable[ExamplesItem]) -> Iterator[str]:
    """Yields the whole text of each example."""
    for item in items:
        for _, example in _examples(item, []):
            yield "".join(example)


def _add(summed: Any, example: Example) -> int:
    """Adds the texts of an example to a sum, each after its length; returns their bytes."""
    contents = [text.encode("utf-8") for text in example]
    for content in contents:
        summed.update(len(content).to_bytes(8, "little") + content)
    return sum(map(len, contents))


def read_index(folder: Path, name: str) -> tuple[np.ndarray, list[SliceLines]]:
    """Returns the index of an item's examples, counted within the item, and its slices."""
    index = np.frombuffer(Path(folder, f"{name}.index").read_bytes(), INDEX).copy()
    record = json.loads(Path(folder, f"{name}.json").read_bytes())
    return index, [SliceLines(*each) for each in record["slices"]]


def _examples(item: ExamplesItem, counts: list[SliceLines]) -> Iterator[tuple[Line, Example]]:
    """Yields the examples of an item; what it has read of each slice is appended to `counts`."""
    for each in item.slices:
        lines = examples = 0
        with reading(each):
            for line in read_objects(each):
                lines = line.number
                if line.problem is not None or line.values is not None:
                    examples += 1
                    yield line, parse_example(line, item.fields)
        counts.append(SliceLines(each.path, each.start == 0, lines, examples))


@functools.lru_cache(maxsize=1)
def _tokenizer(described: str) -> Tokenizer:
    return tokenizer_from_dict(json.loads(described))
