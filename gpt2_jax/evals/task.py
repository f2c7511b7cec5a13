"""What an evaluation is: requests to score, a row for each, and numbers from the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpt2_jax.data.tokenizer import Tokenizer
from gpt2_jax.errors import UserError
from gpt2_jax.evals.batching import Request
from gpt2_jax.evals.scoring import Likelihood

Row = dict[str, Any]


class Task(Protocol):
    """One evaluation on one data set."""

    name: str
    """What `--tasks` calls it."""
    protocol: str
    """Whose rules the numbers follow, for the footnote under the table."""

    def requests(self, tokenizer: Tokenizer, context_length: int) -> list[Request]:
        """One request per example, in the order of the data."""
        ...

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """What is kept of example `index`: plain values."""
        ...

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """The numbers to report, from the rows of all examples."""
        ...


def read_jsonl(path: Path, keys: Mapping[str, type]) -> Iterator[dict[str, Any]]:
    """The objects of a file, one a line.

    Args:
      keys: what each must have, and of which type.

    Raises:
      UserError: for a file that can't be read or has no line, or a line that is not such an object.
    """
    try:
        # Not splitlines: a text may hold characters that Python takes for the end of a line.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {error}") from error
    if lines == [""]:
        raise UserError(f"{path} is empty: expected an object a line")
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
            wrong = [key for key, kind in keys.items() if not isinstance(value[key], kind)]
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path}, line {number}: expected an object with {[*keys]}") from error
        if wrong:
            raise UserError(
                f"{path}, line {number}: {wrong[0]!r} must be {keys[wrong[0]].__name__}"
            )
        yield value


def mean(name: str, values: Sequence[float]) -> dict[str, float]:
    """`name`, and `name_stderr`, the standard error of the mean."""
    array = np.asarray(values, np.float64)
    spread = array.std(ddof=1) if len(array) > 1 else math.nan
    return {name: float(array.mean()), f"{name}_stderr": float(spread / math.sqrt(len(array)))}


def perplexity(nats: Sequence[float]) -> dict[str, float]:
    """exp of the mean of what each example costs, and its standard error to first order."""
    found = mean("nats", nats)
    value = math.exp(min(found["nats"], 700))
    return {"perplexity": value, "perplexity_stderr": value * found["nats_stderr"]}
