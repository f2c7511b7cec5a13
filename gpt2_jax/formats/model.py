"""A model of any format as data (`Model`), and what reads its parameters (`ModelReader`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gpt2_jax.config import Config
from gpt2_jax.model.build import abstract_params
from gpt2_jax.tokenizers.tokenizer import Tokenizer


class Base(NamedTuple):
    """Names the model that adapters (LoRA) were trained on.

    Attributes:
      name: a path, absolute if it is on a disk, or the id of a model on the Hugging Face hub.
      fingerprint: `base.fingerprint` of its parameters; empty if it is unknown.
    """

    name: str
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Model:
    """Holds a model as data: its parameters, its tokenizer, and the config that produced them.

    Attributes:
      config: the whole config of the run that made it; for a model from another program, only
        `model`, `compute.dtype` and `data.tokenizer` differ from the defaults.
      params: scanned parameters (`h` stacked over layers), float32.
      tokenizer: the tokenizer it was trained with.
      step: the training step of the parameters; 0 if it is unknown.
      path: the folder it was read from.
      base: the model that its adapters (LoRA) belong to; None without adapters.
    """

    config: Config
    params: Any
    tokenizer: Tokenizer
    step: int
    path: Path
    base: Base | None = None


class StepParams(NamedTuple):
    """Holds parameters as they were read, and the step and the folder that they were read from."""

    params: Any
    step: int
    path: Path


@dataclasses.dataclass(frozen=True)
class ModelReader:
    """Describes a model whose parameters have not been read yet.

    Attributes:
      config, tokenizer, step, path, base: see `Model`.
      read_params: reads the scanned parameters onto the shardings of a tree of ShapeDtypeStructs,
        such as `abstract_params(config.model)`. They are of a newer step than `step` if a trainer
        has removed that one meanwhile.
      data_fingerprint: identifies the shards that it was trained on; None if that is unknown.
    """

    config: Config
    tokenizer: Tokenizer
    step: int
    path: Path
    read_params: Callable[[Any], StepParams]
    data_fingerprint: str | None = None
    base: Base | None = None

    def read(self) -> Model:
        """Returns the model, with all of its parameters on the first device."""
        params, step, path = self.read_params(abstract_params(self.config.model))
        return Model(self.config, params, self.tokenizer, step, path, self.base)
