"""The protocol of a task that a model does by writing answers: read, format, score.

Tasks of `evals.task` are others: there a model writes nothing, but says how probable texts are.

A task is a class in one file, such as `translation.py`, and an entry in `registry.TASKS`, or a file
of yours that ends in `TASK = MyTask()`. docs/tasks.md walks through one.
"""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.evals.run import Show
from gpt2_jax.evals.task import read_jsonl
from gpt2_jax.formats.model import Model
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.prepare.example_lines import Example
from gpt2_jax.tokenizers.tokenizer import Tokenizer

Record = Mapping[str, Any]
"""One example as its file has it, in plain values."""


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Says how answers are generated; greedily up to the end of text, unless told otherwise.

    Attributes:
      options: how tokens are drawn.
      max_new_tokens: the most tokens of an answer; None for 1.2 times the 99th percentile of the
        answers to train on, in the tokens of the model.
      stop: strings that end an answer and are not part of it.
      seed: of the draws.
    """

    options: SamplingOptions = SamplingOptions(temperature=0.0)
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Metric:
    """Holds a number about many answers in a form that the bootstrap can resample.

    Attributes:
      name: such as "bleu".
      values: float64 [N, k], k statistics of each example, such as counts of n-grams.
      combine: returns the number from the sums of the statistics, [k].
    """

    name: str
    values: np.ndarray
    combine: Callable[[np.ndarray], float]

    def value(self) -> float:
        """Returns the number of all examples."""
        return float(self.combine(self.values.sum(axis=0)))


def average(name: str, values: Sequence[float]) -> Metric:
    """Returns the metric that is the mean of a value of each example."""
    pairs = np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)
    return Metric(name, pairs, lambda sums: sums[0] / sums[1])


@dataclasses.dataclass(frozen=True)
class Settings:
    """Says how a task is evaluated.

    Attributes:
      split: the examples to answer: "train", "val" or "test".
      limit: how many of them, from the first; None for all.
      folder: keeps each answer, so that an interrupted evaluation resumes; None for none.
      digest: identifies the model in that folder, as `evals.run.model_digest` does.
    """

    split: str = "test"
    limit: int | None = None
    folder: Path | None = None
    digest: str = ""


class Task(abc.ABC):
    """Reads examples, formats each as a prompt and its answer, and scores what a model answers.

    `prepare --task` and `eval --tasks` need no more than these three, `name` and `protocol`. A task
    whose examples are not texts, such as music, also overrides `prepare` and `evaluate`.
    """

    name: ClassVar[str]
    """The name of the task for `--task` and `--tasks`."""
    decoding: ClassVar[Decoding] = Decoding()
    """How answers are generated."""

    @property
    @abc.abstractmethod
    def protocol(self) -> str:
        """Returns the rules that the numbers follow, for the footnote under the table.

        A class may have a string of this name instead.
        """

    @abc.abstractmethod
    def read(self, folder: Path, split: str) -> Sequence[Record]:
        """Returns the examples of a split, such as "train", of a folder with the task's data.

        "val" is read only if the folder has a file val.*; otherwise training holds out the end of
        "train".

        Raises:
          UserError: if a file is missing or malformed.
        """

    @abc.abstractmethod
    def format(self, record: Record) -> Example:
        """Returns the prompt and the answer that a model is trained on, as texts."""

    @abc.abstractmethod
    def score(self, records: Sequence[Record], answers: Sequence[str]) -> Sequence[Metric]:
        """Returns the metrics of the answers to the examples."""

    def prompt_tokens(self, record: Record, tokenizer: Tokenizer) -> list[int]:
        """Returns the ids of the prompt, of which there must be one at least.

        Raises:
          UserError: if the prompt is empty and the tokenizer has no id to begin with.
        """
        example = self.format(record)
        if not isinstance(example, Example):
            raise UserError(
                f"{self.name}: format must return an Example, not {type(example).__name__}"
            )
        if tokens := tokenizer.encode(example.prompt):
            return tokens
        if tokenizer.bos is None:
            raise UserError(
                f"{self.name}: the {tokenizer.name} tokenizer has no token to begin with"
            )
        return [tokenizer.bos]

    def answer(self, text: str) -> str:
        """Returns the part of a generated text that is scored: all of it, without outer spaces."""
        return text.strip()

    def prepare(
        self, data: Path, tokenizer: str | Tokenizer | None, out: str | Path, **settings: Any
    ) -> dict[str, Any]:
        """Writes the folder of tokens that training reads, and returns `prepare`'s summary.

        Args:
          data: the folder with the task's data.
          tokenizer: a tokenizer, or a name such as "byte" or "bpe:4096"; None is "gpt2".
          out: the folder to make.
          settings: further arguments of `prepare.examples.prepare_examples`.

        Raises:
          UserError: if data, tokenizer or `out` do not fit.
        """
        from gpt2_jax.tasks.examples import prepare_task

        return prepare_task(self, data, tokenizer or "gpt2", out, **settings)

    def evaluate(
        self, model: Model, data: Path, settings: Settings, show: Show = lambda done, total: None
    ) -> dict[str, float]:
        """Returns the numbers of what the model answers, each with `_stderr` if it has one.

        Args:
          model: the model.
          data: the folder with the task's data.
          settings: see `Settings`.
          show: called with (examples answered, examples in all).

        Raises:
          UserError: if model and data do not fit.
        """
        from gpt2_jax.tasks.run import evaluate_task

        return evaluate_task(self, model, data, settings, show)


def read_split(folder: Path, split: str, keys: Sequence[str]) -> list[Record]:
    """Returns the objects of `<split>.jsonl` in a folder, of which each has texts under these keys.

    Raises:
      UserError: if there is no such file, or a line is not such an object.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file: name the folder that has the task's data")
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        raise UserError(
            f"{path} is missing: the data of a task is a folder with train.jsonl, val.jsonl and "
            f"test.jsonl, whose lines are such as {json.dumps(dict.fromkeys(keys, '...'))}"
        )
    return list(read_jsonl(path, dict.fromkeys(keys, str)))
