"""Opens any model, whatever its format, with `load(M)` or `open_model(M)`.

M is a run's workdir, whose newest step is read, the folder of one step, `RUN/checkpoints/best` or
`RUN/checkpoints/newest` (see `places.py`), a folder in Hugging Face's, PEFT's or OpenAI's format,
or the id of a model on the Hugging Face hub. With adapters (LoRA), the model that they belong to is
read, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.best import read_best
from gpt2_jax.checkpoint.manifest import NO_AVERAGE
from gpt2_jax.checkpoint.newest import read_newest
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import Config
from gpt2_jax.errors import StorageError, UserError, print_stderr
from gpt2_jax.files.extras import import_extra
from gpt2_jax.files.lfs import refuse_lfs_pointers
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.formats import base, huggingface, openai, peft
from gpt2_jax.formats.model import Base, Model, ModelReader, StepParams
from gpt2_jax.formats.places import BEST, NEWEST, is_place, locate
from gpt2_jax.model.defaults import with_dtype
from gpt2_jax.parallel.distributed import is_primary
from gpt2_jax.parallel.platforms import check_platforms
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer, tokenizer_from_dict

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FORMATS = (openai, huggingface)
_CONVERTED_WITHOUT = (
    "this checkpoint was made without a tokenizer: to have one, convert the original model again, "
    "from a folder with tokenizer files that can be read"
)
_HUB_FILES = ["*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.model"]
# Files of other programs' models that are read, each of which may be a pointer instead.
_READ_FILES = (*_HUB_FILES, "*.bpe", "*.index", "*.data-*-of-*")


def load(model: str | Path, *, ema: bool = False, dtype: str | None = None) -> Model:
    """Returns a model, with all of its parameters on the first device.

    Args:
      model: see the top of this file; for a workdir, the newest good step is read.
      ema: whether to read the average of the parameters in their place (`optimizer.ema_decay`).
      dtype: `compute.dtype` of the model's config from then on; by default its own.

    Raises:
      UserError: if the folder is not a model, or keeps no average that is asked for, or there is
        no such dtype.
      StorageError: if no checkpoint is good, or the requested step is damaged.
    """
    with open_model(model, ema=ema, dtype=dtype) as reader:
        if isinstance(reader.tokenizer, IdsTokenizer):
            _note(
                "note: this model takes and gives token ids instead of text: "
                f"{reader.tokenizer.reason}"
            )
        return reader.read()


@contextlib.contextmanager
def open_model(
    model: str | Path, *, ema: bool = False, dtype: str | None = None
) -> Iterator[ModelReader]:
    """Opens a model as `load` does, but its parameters are read only on request, in the block."""
    with _opened(model, ema) as reader:
        if dtype is not None:
            values = config_lib.to_dict(reader.config)
            values["compute"]["dtype"] = dtype
            config = config_lib.from_dict(values)  # which checks it
            config = dataclasses.replace(config, compute=with_dtype(config.compute))
            reader = dataclasses.replace(reader, config=config)
        yield reader


@contextlib.contextmanager
def _opened(model: str | Path, ema: bool) -> Iterator[ModelReader]:
    path = _local(model)
    check_platforms()
    has_adapters = peft.recognizes(path)
    if (format_ := _format_of(path)) is not None or has_adapters:
        if ema:
            raise UserError(
                f"{path} is in another program's format, which has no average of the parameters: "
                "use the parameters themselves, without --ema"
            )
        if has_adapters:
            yield base.with_peft_base(path, open_model)
        else:
            yield _foreign(path, format_)
        return
    directory, step = locate(path)
    store = CheckpointStore(directory, lean=True, read_only=True, average=ema)
    with contextlib.closing(store):
        reader = _native(store, step)
        if ema:
            reader = base.with_frozen(_of_average(reader), directory)
        yield base.with_base(reader, open_model)


def read_text_tokenizer(model: str | Path) -> Tokenizer:
    """Returns the tokenizer of a model, which must be one that takes text.

    To read that of another program's model starts no devices.

    Raises:
      UserError: if the folder is not a model, or its tokenizer cannot be read.
      StorageError: if no checkpoint is good, or the requested step is damaged.
    """
    path = _local(model)
    if (format_ := _format_of(path)) is not None:
        tokenizer = format_.read_model_tokenizer(path, format_.read_config(path), print_stderr)
    else:
        with open_model(path) as reader:
            tokenizer = reader.tokenizer
    if isinstance(tokenizer, IdsTokenizer):
        raise UserError(f"{model} has no tokenizer that can be read: {tokenizer.reason}")
    return tokenizer


def _note(line: str) -> None:
    if is_primary():
        print_stderr(line)


def _format_of(path: Path) -> Any:
    """Returns the module that reads a model of another program; None for other folders.

    Raises:
      UserError: if a file is a pointer of Git LFS instead.
    """
    if _is_native(path) or peft.recognizes(path):
        return None
    refuse_lfs_pointers(path, _READ_FILES)
    return next((format_ for format_ in _FORMATS if format_.recognizes(path)), None)


def _foreign(path: Path, format_: Any) -> ModelReader:
    config = format_.read_config(path)
    tokenizer = format_.read_model_tokenizer(path, config, _note)
    data = dataclasses.replace(config.data, tokenizer=tokenizer.name)

    def read_params(abstract: Any) -> StepParams:
        return StepParams(format_.read_params(path, config.model, abstract), 0, path)

    return ModelReader(dataclasses.replace(config, data=data), tokenizer, 0, path, read_params)


def _of_average(reader: ModelReader) -> ModelReader:
    """Returns a reader of averages that refuses one of no updates, which is zeros."""

    def read_params(abstract: Any) -> StepParams:
        read = reader.read_params(abstract)
        if not any(bool(leaf.any()) for leaf in jax.tree.leaves(read.params)):
            raise UserError(
                f"{read.path} has no average of the parameters yet, because no update was made: "
                "use the parameters themselves, without --ema"
            )
        return read

    return dataclasses.replace(reader, read_params=read_params)


def _native(store: CheckpointStore, step: int | str) -> ModelReader:
    if step == NEWEST:
        return _moving(store, read_newest, lambda step: None)
    if step == BEST:
        return _moving(store, read_best, lambda step: _check_good(store, step))
    step = int(step)
    _check_good(store, step)
    path = store.directory / str(step)

    def read_params(abstract: Any) -> StepParams:
        return StepParams(store.restore_params(step, abstract), step, path)

    config, tokenizer, fingerprint, of_adapters = _description(store, step)
    return ModelReader(config, tokenizer, step, path, read_params, fingerprint, of_adapters)


def _check_good(store: CheckpointStore, step: int) -> None:
    """Raises the error of a step that is damaged or has no average of the parameters."""
    path, problem = store.directory / str(step), store.damage(step)
    if problem == NO_AVERAGE:
        raise UserError(f"{path}: {problem}")
    if problem:
        raise StorageError(f"checkpoint {path} is damaged ({problem})")


def _moving(
    store: CheckpointStore, read: Callable[..., tuple[int, Any]], check: Callable[[int], None]
) -> ModelReader:
    """Returns a reader of a step that a trainer may replace by another and remove meanwhile.

    Args:
      store: the checkpoints of the run.
      read: `read_newest` or `read_best`, which look up the step and its replacement.
      check: checks a step that `read` has looked up.
    """

    def describe(step: int) -> tuple[Config, Tokenizer, str | None, Base | None]:
        check(step)
        return _description(store, step)

    step, (config, tokenizer, fingerprint, of_adapters) = read(store, describe)

    def read_params(abstract: Any) -> StepParams:
        now, params = read(store, lambda step: store.restore_params(step, abstract), known=step)
        return StepParams(params, now, store.directory / str(now))

    path = store.directory / str(step)
    return ModelReader(config, tokenizer, step, path, read_params, fingerprint, of_adapters)


def _description(
    store: CheckpointStore, step: int
) -> tuple[Config, Tokenizer, str | None, Base | None]:
    """Returns config, tokenizer, the fingerprint of the data and the adapters' base of a step."""
    meta = store.meta(step)
    config, tokenizer = meta["config"], meta["tokenizer"]
    of_adapters = Base(**meta["base"]) if meta.get("base") else None
    return (
        config_lib.from_dict(config),
        tokenizer_from_dict(tokenizer),
        meta.get("data_fingerprint"),
        of_adapters,
    )


def write_native(folder: Path, model: Model) -> None:
    """Writes a model as a workdir with one step.

    The step has no optimizer state: it can be loaded, but not resumed. Of a tokenizer that could
    not be read it does not repeat why, because that is about the folder of the original model.

    Raises:
      StorageError: if the step cannot be written.
    """
    tokenizer = model.tokenizer
    if isinstance(tokenizer, IdsTokenizer):
        tokenizer = IdsTokenizer(
            tokenizer.vocab_size, _CONVERTED_WITHOUT, tokenizer.bos, tokenizer.ends
        )
    meta = {"config": config_lib.to_dict(model.config), "tokenizer": tokenizer.to_dict()}
    with contextlib.closing(CheckpointStore(folder / "checkpoints", lean=True)) as store:
        store.save(model.step, model.params, None, meta)
        store.wait()


def _local(model: str | Path) -> Path:
    """Returns the folder of a model, downloading it from the hub if the name is not a folder."""
    if not str(model):
        raise UserError("the model's path is empty: name a run's workdir or another model")
    path = resolve_path(model)
    if path.exists() or is_place(path):
        return path
    problem = (
        f"no model at {model}: expected a run's workdir, a step's folder, or a folder in Hugging "
        "Face's, OpenAI's or PEFT's format"
    )
    if not _HUB_ID.fullmatch(str(model)):
        raise UserError(problem)
    hub = import_extra(
        "huggingface_hub",
        extra="hub",
        needed_by=f"{problem}; if {model} is a model on the Hugging Face hub, fetching it",
    )
    try:
        # Files in subfolders are the same weights in the formats of other programs.
        folder = hub.snapshot_download(str(model), allow_patterns=_HUB_FILES, ignore_patterns="*/*")
    except (OSError, ValueError) as error:  # the bases of the hub's own errors
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{problem}; the Hugging Face hub says: {reason}") from error
    return Path(folder)


def is_foreign(path: Path) -> bool:
    """Returns whether a folder holds a model of another program, and no checkpoints of our own."""
    return not _is_native(path) and any(format_.recognizes(path) for format_ in _FORMATS)


def _is_native(path: Path) -> bool:
    return (path / "checkpoints").is_dir() or (path / "params").is_dir() or is_place(path)
