"""What stays the same through a run: its config, its folder, its mesh, and what it was handed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optax
from jax.sharding import Mesh

from gpt2_jax.config import Config
from gpt2_jax.data.loader import BatchSource
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.train.state import TrainState

# (parameters, tick) -> (name, value) pairs: numbers become metrics, texts become samples. It calls
# `tick` between batches, as often in every process; what that raises ends the evaluation.
Evaluator = Callable[[Any, Callable[[], None]], Iterator[tuple[str, float | str]]]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run needs beside its config; the rooms above the trainer know it.

    Attributes:
      source: batches by number.
      origins: batch number -> (folder, first token in its train split) of each row, for who looks
        into a batch that went wrong.
      make_evaluators: (abstract params on the mesh, mesh, rules) -> what to run at every
        validation.
      tokenizer: `Tokenizer.to_dict()`, stored with every checkpoint.
      data_fingerprint: tells the shards from others, so that a run does not go on with those.
      read_params: reads the model `train.init_from` names onto the abstract parameters' shardings.
    """

    source: BatchSource
    origins: Callable[[int], list[tuple[str, int]]]
    make_evaluators: Callable[..., Sequence[Evaluator]]
    tokenizer: Mapping[str, Any]
    data_fingerprint: str
    read_params: Callable[[str, Any], Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run in one workdir.

    Attributes:
      abstract: shapes and shardings of its state.
    """

    config: Config
    workdir: Path
    setup: Setup
    mesh: Mesh
    rules: Rules
    optimizer: optax.GradientTransformation
    abstract: TrainState
