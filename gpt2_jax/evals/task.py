"""Defines an evaluation: requests to score, a result for each, and metrics from the results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.evals.sources import SOURCES
from gpt2_jax.files.lfs import refuse_lfs_pointer
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.scoring import Likelihood
from gpt2_jax.tokenizers.tokenizer import Tokenizer

Row = dict[str, Any]
"""The result of one request, as plain values."""


class Setting(NamedTuple):
    """Holds what a task needs to know to prepare its requests.

    Attributes:
      folder: the folder with the tasks' files.
      tokenizer, context_length: of the model.
      stride: tokens scored per window of a long text; None for windows that do not overlap.
      detokenize: whether tokenized corpora are converted to prose.
    """

    folder: Path
    tokenizer: Tokenizer
    context_length: int
    stride: int | None = None
    detokenize: bool = True

    def file(self, task: str) -> Path:
        """Returns the path of a task's data."""
        return self.folder / SOURCES[task].file


class Task(Protocol):
    """Scores a model on one data set.

    A task is made from a Setting, and raises UserError if its file is missing or malformed.
    """

    name: str
    """The name of the task in `--tasks`."""
    protocol: str
    """The rules that the numbers follow, for the footnote under the table."""
    path: Path
    """The file that the data is read from."""
    requests: Sequence[Request]
    """The requests to score, in the order of the data."""
    excluded: Sequence[int] = ()
    """The ids of tokens that `Likelihood.allowed` leaves out of the comparison."""

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Returns the result of request `index` as plain values."""
        ...

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Returns the metrics, each with its `_stderr`, from the results of all requests."""
        ...


def read_text(path: Path) -> str:
    """Returns a file's text.

    Raises:
      UserError: if the file cannot be read, is not UTF-8, is empty or is a Git LFS pointer.
    """
    try:
        content = path.read_bytes()
        refuse_lfs_pointer(path, content)
        # Text mode would convert line ends.
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: byte {error.start} is not UTF-8") from error
    if not text.strip():
        raise UserError(f"{path} is empty")
    return text


_KINDS = {str: "a string", list: "a list", dict: "an object", int: "an integer"}


def read_jsonl(path: Path, keys: Mapping[str, type]) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file with one JSON object per line; empty lines are skipped.

    Args:
      path: the file.
      keys: the keys that each object must have, with their types.

    Raises:
      UserError: if the file cannot be read or is empty, or a line is not such an object.
    """
    # Not splitlines, which also splits at characters that may occur in a text, such as U+2028.
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from error
        try:
            wrong = [key for key, kind in keys.items() if not isinstance(value[key], kind)]
        except (LookupError, TypeError) as error:
            expected = ", ".join(keys)
            raise UserError(f"{path}, line {number}: expected an object with {expected}") from error
        if wrong:
            kind = _KINDS.get(keys[wrong[0]], keys[wrong[0]].__name__)
            raise UserError(f"{path}, line {number}: {wrong[0]!r} must be {kind}")
        yield value


def mean(name: str, values: Sequence[float]) -> dict[str, float]:
    """Returns the mean as `name`, and its standard error as `name_stderr`."""
    return dict(zip((name, f"{name}_stderr"), ratio(values, [1] * len(values)), strict=True))


def ratio(amounts: Sequence[float], units: Sequence[float]) -> tuple[float, float]:
    """Returns (sum of amounts / sum of units, its standard error), for independent pairs.

    The error is that of the ratio estimator (Cochran, Sampling Techniques, 1977, section 6.4); it
    is NaN for a single pair.
    """
    y, x = np.asarray(amounts, np.float64), np.asarray(units, np.float64)
    value = y.sum() / x.sum()
    if len(y) < 2:
        return float(value), math.nan
    error = math.sqrt(len(y) / (len(y) - 1) * np.square(y - value * x).sum()) / x.sum()
    return float(value), error


def perplexity(nats: float, error: float, name: str = "perplexity") -> dict[str, float]:
    """Returns exp(nats), infinity if it overflows, and its standard error to first order."""
    value = math.exp(nats) if nats < 700 else math.inf
    return {name: value, f"{name}_stderr": value * error}
