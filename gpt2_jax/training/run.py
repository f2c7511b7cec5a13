"""What a trainer is given (`Setup`), and what it derives from that (`Run`).

`Setup` comes from the packages above this one, which know about evaluations and model formats.
`Run` adds what the trainer itself derives from the config. Neither changes during the run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax
from jax.sharding import Mesh

from gpt2_jax.config import Config, MeshConfig
from gpt2_jax.data.batch import BatchSource, Origin
from gpt2_jax.formats.model import Base
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.state import TrainState

# (parameters, tick) -> (name, value) pairs. Numbers become metrics, strings become samples, and
# arrays [T] become files of the workdir. An evaluator calls `tick` between its batches, equally
# often in every process, and lets through whatever `tick` raises to interrupt the evaluation.
Evaluator = Callable[[Any, Callable[[], None]], Iterator[tuple[str, float | str | np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Setup:
    """Holds what a trainer is given besides the config and the workdir.

    Attributes:
      source: the batches, by number.
      origins: batch number -> where each of its rows is from, for whoever looks into a batch that
        caused a bad step.
      make_evaluators: (abstract parameters on the mesh, mesh, rules) -> the evaluators to run at
        every validation. The first, which gives the loss, also sees the average of the parameters.
      tokenizer: `Tokenizer.to_dict()`, stored with every checkpoint.
      data_fingerprint: a hash of the shards, which must be the same on resume.
      read_params: (`train.init_from`, abstract parameters without adapters) -> the parameters of
        that model, on the shardings of the abstract ones.
      mesh: the axes to train on; by default those of the config. A config that leaves its mesh
        unset is saved so, and may get another mesh on resume.
    """

    source: BatchSource
    origins: Callable[[int], list[Origin]]
    make_evaluators: Callable[..., Sequence[Evaluator]]
    tokenizer: Mapping[str, Any]
    data_fingerprint: str
    read_params: Callable[[str, Any], Any]
    mesh: MeshConfig | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds everything that does not change during a run.

    Attributes:
      config: every knob.
      workdir: the run's folder.
      setup: what the trainer was given.
      mesh, rules: the devices, and how arrays are sharded over them.
      optimizer: clipping, update rule, weight decay and learning rate.
      abstract: shapes, dtypes and shardings of the state.
      base: the model whose adapters (LoRA) are trained; None without adapters.
    """

    config: Config
    workdir: Path
    setup: Setup
    mesh: Mesh
    rules: Rules
    optimizer: optax.GradientTransformationExtraArgs
    abstract: TrainState
    base: Base | None = None
