"""What an evaluation is: requests to score, a row for each, and numbers from the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.evals.sources import SOURCES
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.scoring import Likelihood
from gpt2_jax.tokenizers.tokenizer import Tokenizer

Row = dict[str, Any]


class Setting(NamedTuple):
    """What a task is made ready for.

    Attributes:
      folder: where the tasks' files are.
      tokenizer, context_length: of the model.
      stride: of the windows that long texts are read in; None: windows that do not overlap.
      detokenize: whether corpora that were cut into tokens are put together again.
    """

    folder: Path
    tokenizer: Tokenizer
    context_length: int
    stride: int | None = None
    detokenize: bool = True

    def file(self, task: str) -> Path:
        """Where a task's data is."""
        return self.folder / SOURCES[task].file


class Task(Protocol):
    """One evaluation on one data set; made from a Setting, UserError for a file that is not one."""

    name: str
    """What `--tasks` calls it."""
    protocol: str
    """Whose rules the numbers follow, for the footnote under the table."""
    path: Path
    """The file its data is from."""
    requests: Sequence[Request]
    """What is scored, in the order of the data."""
    excluded: Sequence[int] = ()
    """Ids of tokens that `Likelihood.allowed` does not let win."""

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """What is kept of request `index`: plain values."""
        ...

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """The numbers to report, each with its `_stderr`, from the rows of all requests."""
        ...


def read_text(path: Path) -> str:
    """A file's text; UserError where it can't be read, is not UTF-8 or has nothing in it."""
    try:
        # Not in text mode, which changes the ends of lines.
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"can't read {path}: byte {error.start} is not UTF-8") from error
    if not text.strip():
        raise UserError(f"{path} is empty")
    return text


def read_jsonl(path: Path, keys: Mapping[str, type]) -> Iterator[dict[str, Any]]:
    """The objects of a file, one a line; empty lines are passed over.

    Args:
      keys: what each must have, and of which type.

    Raises:
      UserError: for a file that can't be read or has no line, or a line that is not such an object.
    """
    # Not splitlines: a text may hold characters that Python takes for the end of a line.
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}") from error
        try:
            wrong = [key for key, kind in keys.items() if not isinstance(value[key], kind)]
        except (LookupError, TypeError) as error:
            expected = ", ".join(keys)
            raise UserError(f"{path}, line {number}: expected an object with {expected}") from error
        if wrong:
            raise UserError(
                f"{path}, line {number}: {wrong[0]!r} must be {keys[wrong[0]].__name__}"
            )
        yield value


def mean(name: str, values: Sequence[float]) -> dict[str, float]:
    """`name`, and `name_stderr`, the standard error of the mean."""
    return dict(zip((name, f"{name}_stderr"), ratio(values, [1] * len(values)), strict=True))


def ratio(amounts: Sequence[float], units: Sequence[float]) -> tuple[float, float]:
    """(sum of amounts per unit, its standard error), as for independent pairs.

    The error is that of the ratio estimator (Cochran, Sampling Techniques, 1977, section 6.4); NaN
    for a single pair.
    """
    y, x = np.asarray(amounts, np.float64), np.asarray(units, np.float64)
    value = y.sum() / x.sum()
    if len(y) < 2:
        return float(value), math.nan
    error = math.sqrt(len(y) / (len(y) - 1) * np.square(y - value * x).sum()) / x.sum()
    return float(value), error


def perplexity(nats: float, error: float, name: str = "perplexity") -> dict[str, float]:
    """exp of nats per unit, infinite past what floats hold; and its error to first order."""
    value = math.exp(nats) if nats < 700 else math.inf
    return {name: value, f"{name}_stderr": value * error}
