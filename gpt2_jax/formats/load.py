"""load(M), the one door to a model: from its folder to config, parameters and tokenizer.

M is a run's workdir, the folder of one step, a folder in Hugging Face's format or of OpenAI's
release, or the id of a model on the Hugging Face hub.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import NOT_JSON, StorageError, UserError
from gpt2_jax.files.storage import is_remote, storage_path
from gpt2_jax.formats import huggingface, openai
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.tokenizers.tokenizer import Tokenizer, tokenizer_from_dict

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_OF_A_RUN = ("checkpoints", "saved_step", "metrics.jsonl")
_HUB_FILES = ["*.json", "*.safetensors", "merges.txt"]


class Model(NamedTuple):
    """A model that was found and whose parameters are still to be read.

    Attributes:
      config: the whole config of the run that made it; of a model from elsewhere, `model` and
        `data.tokenizer` say what it is and the rest is default.
      tokenizer: the tokenizer it was trained with.
      step: training step of the parameters; 0 where that is not known.
      path: the folder they are in.
      read: reads scanned parameters onto the shardings of `abstract_params(config.model)` or of a
        tree like it.
    """

    config: Config
    tokenizer: Tokenizer
    step: int
    path: Path
    read: Callable[[Any], Any]


class Loaded(NamedTuple):
    """What a model folder holds.

    Attributes:
      config, tokenizer, step, path: see `Model`.
      params: scanned parameters (`h` stacked over layers), float32.
    """

    config: Config
    params: Any
    tokenizer: Tokenizer
    step: int
    path: Path


def load(model: str | Path) -> Loaded:
    """Reads a model's parameters, whole on the first device, its config and its tokenizer.

    Args:
      model: see the top of this file; of a workdir, the newest good step is read.

    Raises:
      UserError: if the folder is not a model.
      StorageError: if no checkpoint is whole, or the step that was named is not.
    """
    found = find(model)
    params = found.read(abstract_params(found.config.model))
    return Loaded(found.config, params, found.tokenizer, found.step, found.path)


def find(model: str | Path) -> Model:
    """Like `load`, up to the parameters."""
    path = _local(model)
    if not _is_native(path):
        for format_ in (openai, huggingface):
            if format_.recognizes(path):
                return _foreign(path, format_)
    return _native(path)


def _foreign(path: Path, format_: Any) -> Model:
    config = format_.read_config(path)
    tokenizer = format_.read_model_tokenizer(path, config)
    data = dataclasses.replace(config.data, tokenizer=tokenizer.name)
    read = functools.partial(format_.read_params, path, config.model)
    return Model(dataclasses.replace(config, data=data), tokenizer, 0, path, read)


def _native(path: Path) -> Model:
    directory, step = locate(path)
    with contextlib.closing(CheckpointStore(directory, read_only=True)) as store:
        if step is None:
            step = store.newest_good()
        elif problem := store.damage(step):
            raise StorageError(f"checkpoint {directory / str(step)} is damaged ({problem})")
        if step is None:
            raise StorageError(
                f"{directory} has no checkpoint: the run has saved none yet, or they were removed"
            )
        meta = store.meta(step)

    def read(abstract: Any) -> Any:
        with contextlib.closing(CheckpointStore(directory, lean=True, read_only=True)) as store:
            return store.restore_params(step, abstract)

    config, tokenizer = config_lib.from_dict(meta["config"]), tokenizer_from_dict(meta["tokenizer"])
    return Model(config, tokenizer, step, directory / str(step), read)


def write_native(folder: Path, loaded: Loaded) -> None:
    """Writes a model as a workdir of one step without an optimizer's state: to load, not to resume.

    Raises:
      StorageError: if that fails.
    """
    meta = {"config": config_lib.to_dict(loaded.config), "tokenizer": loaded.tokenizer.to_dict()}
    with contextlib.closing(CheckpointStore(folder / "checkpoints", lean=True)) as store:
        store.save(loaded.step, loaded.params, None, meta)
        store.wait()


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
    path = storage_path(workdir) / "config.json"
    if not path.exists():
        return None
    try:
        return config_lib.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (UserError, *NOT_JSON, AttributeError) as error:
        raise UserError(
            f"{path} is not a run's config ({error}); remove it: it is written anew on resume"
        ) from error


def _local(model: str | Path) -> Path:
    """The folder of a model; what is no folder may be the id of a model on the hub."""
    if not str(model):
        raise UserError("the model's path is empty: name a run's workdir or another model")
    path = storage_path(model)
    if path.exists():
        return path
    problem = (
        f"no model at {model}: expected a run's workdir, a step's folder, or a folder in Hugging "
        "Face's or OpenAI's format"
    )
    if not _HUB_ID.fullmatch(str(model)):
        raise UserError(problem)
    try:
        from huggingface_hub import snapshot_download  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{problem}; if {model} is a model on the Hugging Face hub: pip install gpt2_jax[hub]"
        ) from None
    try:
        # Files in subfolders are the same weights for other programs.
        folder = snapshot_download(str(model), allow_patterns=_HUB_FILES, ignore_patterns="*/*")
    except (OSError, ValueError) as error:  # what the hub's own errors derive from
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{problem}; the Hugging Face hub says: {reason}") from error
    return Path(folder)


def _is_native(path: Path) -> bool:
    return (path / "checkpoints").is_dir() or (path / "params").is_dir()


def locate(path: Path) -> tuple[Path, int | None]:
    """(folder of checkpoints, one step or None for the newest) of a model in our own format."""
    folder = path if is_remote(path) else path.resolve()  # the name of "." is empty
    if any((folder / name).exists() for name in _OF_A_RUN):
        return folder / "checkpoints", None
    if folder.name.isdigit() and (folder / "params").is_dir():
        return folder.parent, int(folder.name)
    if folder.name == "checkpoints":
        return folder, None
    raise UserError(
        f"{path} is not a model: a run's workdir has a checkpoints/ folder, a step's folder is "
        "named by its number, Hugging Face's has a config.json, OpenAI's an hparams.json"
    )
