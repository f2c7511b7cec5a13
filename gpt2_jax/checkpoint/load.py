"""load(M), the one door to a model: from its folder to config, parameters and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.data.tokenizer import Tokenizer, tokenizer_from_dict
from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.model.gpt2 import GPT2


class Loaded(NamedTuple):
    """What a model folder holds.

    Attributes:
      config: the whole config of the run that made it.
      params: scanned parameters (`h` stacked over layers), float32.
      tokenizer: the tokenizer it was trained with.
      step: training step of the parameters.
      path: the checkpoint's folder.
    """

    config: Config
    params: Any
    tokenizer: Tokenizer
    step: int
    path: Path


def load(model: str | Path, *, abstract: Any = None) -> Loaded:
    """Reads a model's parameters, its config and its tokenizer.

    Args:
      model: a run's workdir (its newest good step is read), or the folder of one step.
      abstract: ShapeDtypeStructs to read the parameters onto, whose shapes they must have; default:
        whole on the first device.

    Raises:
      UserError: if the folder is not a model, or not one of the shapes asked for.
      StorageError: if there is no whole checkpoint, or the newest can't be read.
    """
    directory, step = _locate(model)
    store = CheckpointStore(directory, read_only=True)
    try:
        steps = [step] if step is not None else store.steps()
        if not steps:
            raise StorageError(f"{directory} holds no whole checkpoint yet")
        meta = store.meta(steps[0])
        config = config_lib.from_dict(meta["config"])
        abstract = abstract_params(config.model) if abstract is None else abstract
        params = store.restore_params(steps[0], abstract)
        tokenizer = tokenizer_from_dict(meta["tokenizer"])
        return Loaded(config, params, tokenizer, steps[0], directory / str(steps[0]))
    finally:
        store.close()


def abstract_params(config: ModelConfig) -> Any:
    """A model's scanned parameters as ShapeDtypeStructs, whole on the first device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    tokens = jax.ShapeDtypeStruct((1, config.context_length), jnp.int32)
    variables = jax.eval_shape(GPT2(config).init, jax.random.key(0), tokens)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(variables["params"]),
    )


def read_run_config(workdir: str | Path) -> Config | None:
    """The config a workdir's run was started with, or None for a workdir without a run.

    Raises:
      UserError: if config.json is not a config.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        return None
    try:
        return config_lib.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (UserError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is not a run's config ({error}); remove it: it is written anew on resume"
        ) from error


def _locate(model: str | Path) -> tuple[Path, int | None]:
    """(folder of checkpoints, one step or None for the newest)."""
    if not str(model):
        raise UserError("the model's path is empty: name a run's workdir or a step's folder")
    path = Path(model)
    if not path.exists():
        raise UserError(f"no model at {path}: expected a run's workdir or a step's folder")
    folder = path.resolve()  # the name of "." is empty
    if (folder / "checkpoints").is_dir():
        return folder / "checkpoints", None
    if folder.name.isdigit() and (folder / "params").is_dir():
        return folder.parent, int(folder.name)
    if folder.name == "checkpoints":
        return folder, None
    raise UserError(
        f"{path} is not a model: a run's workdir has a checkpoints/ folder (has it saved yet?), "
        "a step's folder is named by its number"
    )
