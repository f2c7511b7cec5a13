"""The base of adapters (LoRA): the model that they were trained on, and that they are added to.

A checkpoint of adapters holds the base's name and a hash of its parameters instead of these.
Whoever reads the adapters reads the base again, and refuses another one. What opens the base is
passed in as `open_model`, because `load.py` imports this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.config.lora import check_adapters_fit, check_trained, parse_freeze
from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.files.paths import is_remote, resolve_path
from gpt2_jax.formats import peft
from gpt2_jax.formats.model import Base, Model, ModelReader, StepParams
from gpt2_jax.formats.places import is_place
from gpt2_jax.model import lora
from gpt2_jax.model.build import abstract_params
from gpt2_jax.model.trainable import joined, names, split, trained_names
from gpt2_jax.parallel.distributed import on_every_host

_IF_MOVED = "; if it has moved, resume the run with its new place as train.init_from"

# Like `load.open_model`: a model's name -> a context manager of its reader.
OpenModel = Callable[[str], contextlib.AbstractContextManager[ModelReader]]


def lasting_name(name: str, open_model: OpenModel) -> str:
    """Returns what a model's name means now: an absolute path, of a run that of one step.

    The id of a model on the hub stays as it is.
    """
    path = resolve_path(name)
    if not (is_remote(path) or path.exists() or is_place(path)):
        return name
    with open_model(name) as reader:
        return str(reader.path if is_remote(reader.path) else reader.path.resolve())


def fingerprint(params: Any, config: ModelConfig) -> str:
    """Returns a sha256 over names, shapes and values of parameters, without padded rows.

    Every process must call this, and gets the same.

    Args:
      params: scanned parameters, wherever they are.
      config: their config.
    """
    digest = hashlib.sha256()
    rows = {"wte": config.vocab_size, "lm_head": config.vocab_size}
    for name, leaf in zip(names(params), jax.tree.leaves(params), strict=True):
        array = on_every_host(leaf)
        array = array[: rows[name]] if name in rows else array
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def refuse_adapters(where: str, config: ModelConfig) -> None:
    """Raises UserError if a model that is to be a base has adapters itself."""
    if config.lora_rank:
        raise UserError(
            f"{where} has adapters, and adapters cannot be added to adapters: merge it first with "
            "gpt2-jax convert --to native, and start from the result"
        )


def read_base(reader: ModelReader, config: ModelConfig, abstract: Any) -> Any:
    """Reads a base's parameters as a model of the same or fewer rows uses them.

    Rows of positions and of the vocabulary that the model does not have are left out. Rows that
    only pad the vocabulary are zero if the base has none.

    Args:
      reader: of the base.
      config: of the model with the adapters.
      abstract: shapes and shardings of the model's parameters without adapters.
    """
    stored = jax.tree.map(
        lambda shape, leaf: jax.ShapeDtypeStruct(shape.shape, leaf.dtype, sharding=leaf.sharding),
        abstract_params(reader.config.model),
        abstract,
    )
    params = reader.read_params(stored).params
    if jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, abstract):
        return params

    def cut(params: Any) -> Any:
        return jax.tree.map(lambda leaf, like: _with_rows(leaf, like.shape), params, abstract)

    return jax.jit(cut, out_shardings=_shardings(abstract))(params)


def with_base(reader: ModelReader, open_model: OpenModel) -> ModelReader:
    """Returns a reader of adapters that reads their base, too; others as they are.

    Raises:
      StorageError: if the checkpoint does not say which base its adapters have.
    """
    if not reader.config.model.lora_rank:
        return reader
    if (base := reader.base) is None:
        raise StorageError(f"checkpoint {reader.path} has adapters, but does not name their base")
    config = reader.config

    def read_params(abstract: Any) -> StepParams:
        of_adapters, of_base = split(abstract, trained_names(config, abstract))
        read = reader.read_params(of_adapters)
        params = _read_checked(open_model, base, read.path, config, of_base)
        return read._replace(params=joined(read.params, params))

    return dataclasses.replace(reader, read_params=read_params)


def with_frozen(reader: ModelReader, checkpoints: Path) -> ModelReader:
    """Returns a reader of averages that adds frozen parameters, which have no average.

    Args:
      reader: reads the average of the parameters that were trained.
      checkpoints: the folder that it reads from.
    """
    config = reader.config
    if not parse_freeze(config.optimizer.freeze):
        return reader

    def read_params(abstract: Any) -> StepParams:
        trained = trained_names(config, abstract)
        read = reader.read_params(split(abstract, trained)[0])
        with contextlib.closing(CheckpointStore(checkpoints, lean=True, read_only=True)) as store:
            params = store.restore_params(read.step, abstract)
        return read._replace(params=joined(read.params, split(params, trained)[1]))

    return dataclasses.replace(reader, read_params=read_params)


def with_peft_base(folder: Path, open_model: OpenModel) -> ModelReader:
    """Returns a reader of the adapters in PEFT's format in a folder, and of their base.

    Raises:
      UserError: if the adapters are of a kind that cannot be read, or their base cannot be.
    """
    settings = peft.read_settings(folder)
    name = settings.base
    if not is_remote(name) and (folder / name).exists():
        name = str((folder / name).resolve())
    with _opened(open_model, name, folder) as base:
        peft.check_targets(folder, settings, base.config.model)
        of_base, tokenizer = base.config, base.tokenizer
    config = dataclasses.replace(
        of_base,
        model=dataclasses.replace(of_base.model, **settings.knobs),
        optimizer=dataclasses.replace(of_base.optimizer, freeze=""),
        train=dataclasses.replace(of_base.train, init_from=name),
    )
    try:
        check_trained(config.model, config.optimizer)
        check_adapters_fit(config.model)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error

    def read_params(abstract: Any) -> StepParams:
        of_adapters, of_base = split(abstract, trained_names(config, abstract))
        adapters = peft.read_adapters(folder, config.model, of_adapters)
        with _opened(open_model, name, folder) as base:
            params = base.read_params(of_base).params
        return StepParams(joined(adapters, params), 0, folder)

    return ModelReader(config, tokenizer, 0, folder, read_params, base=Base(name, ""))


def merged(reader: ModelReader) -> ModelReader:
    """Returns a reader of the same function without adapters; without any, the reader itself."""
    model = reader.config.model
    if not model.lora_rank:
        return reader

    def read_params(abstract: Any) -> StepParams:
        """Reads the adapters whole onto the devices of the base, and merges there."""
        like = jax.tree.leaves(abstract)[0].sharding
        whole = NamedSharding(like.mesh, PartitionSpec()) if hasattr(like, "mesh") else like
        every = abstract_params(model)
        adapters = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
            split(every, trained_names(reader.config, every))[0],
        )
        read = reader.read_params(joined(adapters, abstract))
        merge = jax.jit(lora.merge, static_argnums=1, out_shardings=_shardings(abstract))
        return read._replace(params=merge(read.params, model))

    config = dataclasses.replace(reader.config, model=lora.without_adapters(model))
    return dataclasses.replace(reader, config=config, read_params=read_params, base=None)


def merged_model(model: Model) -> Model:
    """Returns the same function without adapters; without any, the model itself."""
    if not model.config.model.lora_rank:
        return model
    config = dataclasses.replace(model.config, model=lora.without_adapters(model.config.model))
    params = lora.merge(model.params, model.config.model)
    return dataclasses.replace(model, config=config, params=params, base=None)


def check_same(base: Base, found: str, where: str, read_from: str) -> None:
    """Checks that a model is the one that adapters were trained on.

    Args:
      base: the adapters' base.
      found: the fingerprint of the model.
      where: what has the adapters.
      read_from: the model's name.

    Raises:
      UserError: if its parameters are others.
    """
    if found != base.fingerprint:
        raise UserError(
            f"{read_from} (fingerprint {found[:12]}) is not the base that the adapters in {where} "
            f"were trained on, which was {base.name} (fingerprint {base.fingerprint[:12]}) then: "
            "restore that model, or name a copy of it as train.init_from"
        )


def find_problem(
    base: Base, init_from: str | None, where: Path, open_model: OpenModel
) -> str | None:
    """Returns why the base of adapters cannot be read, or None; its parameters are not read.

    A base on the hub is not looked for.

    Args:
      base: the adapters' base.
      init_from: of the config of their run.
      where: the step that has the adapters.
      open_model: see `OpenModel`.
    """
    name = _place_now(base, init_from)
    path = resolve_path(name)
    if not is_remote(path) and not path.exists():
        if not path.is_absolute():
            return None
        return f"the base of its adapters is missing, which was {name}{_IF_MOVED}"
    try:
        with _opened(open_model, name, where, _IF_MOVED):
            return None
    except (UserError, StorageError) as error:
        return str(error)


def _place_now(base: Base, given: str | None) -> str:
    """Returns where a base is: where it was or, if it is gone, what train.init_from leads to."""
    name = base.name
    if given and not is_remote(name) and Path(name).is_absolute() and not Path(name).exists():
        name = given if resolve_path(given).exists() else name
    return name


def _read_checked(
    open_model: OpenModel, base: Base, where: Path, config: Config, abstract: Any
) -> Any:
    """Reads the base of adapters from where it was or, if the config's path leads to it, there."""
    name = _place_now(base, config.train.init_from)
    with _opened(open_model, name, where, _IF_MOVED) as reader:
        params = read_base(reader, lora.without_adapters(config.model), abstract)
    check_same(base, fingerprint(params, config.model), str(where), name)
    return params


@contextlib.contextmanager
def _opened(
    open_model: OpenModel, name: str, where: Path, advice: str = ""
) -> Iterator[ModelReader]:
    """Opens the base of the adapters in a folder."""
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(open_model(name))
        except (UserError, StorageError) as error:
            raise type(error)(
                f"the base {name} of the adapters in {where} cannot be read: {error}{advice}"
            ) from error
        refuse_adapters(f"the base {name} of the adapters in {where}", reader.config.model)
        yield reader


def _with_rows(leaf: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns an array cut to a shape, with zeros where it is shorter."""
    cut = leaf[tuple(slice(0, size) for size in shape)]
    return jnp.pad(cut, [(0, size - have) for size, have in zip(shape, cut.shape, strict=True)])


def _shardings(abstract: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)
