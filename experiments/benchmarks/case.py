"""What a case of the benchmark is: a task, the programs that do it, and how they must agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class Shape:
    """Describes a GPT-2 by its sizes.

    Attributes:
      layers, heads, width: the blocks, the heads of each, and the width of the residual stream.
      context: positions, which is also the length of the sequences.
      vocab: rows of the embedding.
    """

    layers: int
    heads: int
    width: int
    context: int
    vocab: int = 50304

    @property
    def params(self) -> int:
        """Returns the number of parameters; the embedding counts once."""
        block = 12 * self.width**2 + 13 * self.width
        return (self.vocab + self.context + 2) * self.width + self.layers * block

    @property
    def flops_per_token(self) -> int:
        """Returns the FLOPs of a forward and backward pass per token: 6 N + 6 L T d, as in llm.c.

        Of attention only the causal half counts. A third of the FLOPs are the forward pass's.
        """
        return 6 * self.params + 6 * self.layers * self.context * self.width


class Work(NamedTuple):
    """Holds the least that a part has to do, to compare its time with the ceilings.

    Attributes:
      tokens: tokens that it processes or generates; 0 if it has none.
      flops: floating-point operations.
      bytes: bytes that it has to move through memory.
    """

    tokens: float = 0
    flops: float = 0
    bytes: float = 0


@dataclasses.dataclass(frozen=True)
class Subject:
    """Describes one program of a case.

    Attributes:
      name: its name in the report; the first subject of a case is ours.
      program: `jax`, `torch`, `ctranslate2` or `command`, which says what it runs on.
      options: how it does the task, such as {"compile": True}.
    """

    name: str
    program: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


class Gate(NamedTuple):
    """Says when the subjects agree, so that their times may be compared.

    Attributes:
      evidence: the name of what the subjects answer: `losses`, `tokens` or `values`.
      tolerance: the largest difference from our answer, relative to it; 0 for equality.
      at_least: how many numbers there must be to compare.
      at_most: how many of them to compare, the first ones; rounding makes later losses differ.
    """

    evidence: str
    tolerance: float
    at_least: int = 1
    at_most: int | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """Describes a measurement: subjects that do one task in turn.

    Attributes:
      name: its name in the results and for `--only`.
      kind: what is measured, which says the module of the worker.
      title: a line for the report.
      task: what every subject is told.
      subjects: who does it.
      parts: what is measured one after the other -> the least work of it.
      gate: when the subjects agree; None if there is nothing to compare.
      count: repetitions of each part in a round.
      counts: part -> its own repetitions.
      rounds: rounds, unless the command line says otherwise.
      dtype: the row of the ceilings that the work is compared with.
    """

    name: str
    kind: str
    title: str
    task: dict[str, Any]
    subjects: tuple[Subject, ...]
    parts: dict[str, Work]
    gate: Gate | None = None
    count: int = 1
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rounds: int = 5
    dtype: str = "float32"
