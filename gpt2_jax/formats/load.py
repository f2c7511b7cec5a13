"""Opens any model, whatever its format, with `load(M)` or `open_model(M)`.

M is a run's workdir, the folder of one step, a folder in Hugging Face's format or of OpenAI's
release, or the id of a model on the Hugging Face hub.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.store import LOOKS, CheckpointStore
from gpt2_jax.config import Config
from gpt2_jax.errors import StorageError, UserError, print_stderr
from gpt2_jax.files.extras import import_extra
from gpt2_jax.files.lfs import refuse_lfs_pointers
from gpt2_jax.files.paths import is_remote, resolve_path
from gpt2_jax.formats import huggingface, openai
from gpt2_jax.formats.safetensors_files import NANOGPT_DOCS
from gpt2_jax.model.build import abstract_params
from gpt2_jax.parallel.distributed import is_primary
from gpt2_jax.parallel.platforms import check_platforms
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer, tokenizer_from_dict

_T = TypeVar("_T")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FORMATS = (openai, huggingface)
# Files and folders that only the workdir of a run has.
_RUN_FILES = ("checkpoints", "saved_step", "metrics.jsonl")
_HUB_FILES = ["*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.model"]
# Files of other programs' models that are read, each of which may be a pointer instead.
_READ_FILES = (*_HUB_FILES, "*.bpe", "*.index", "*.data-*-of-*")


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
    """

    config: Config
    params: Any
    tokenizer: Tokenizer
    step: int
    path: Path


@dataclasses.dataclass
class ModelReader:
    """Describes a model whose parameters have not been read yet.

    Attributes:
      config, tokenizer, step, path: see `Model`. If a trainer removes the newest step of a run
        before its parameters are read, reading them changes `step` and `path` to the newer step
        that has been read instead.
      read_params: reads the scanned parameters onto the shardings of a tree of ShapeDtypeStructs,
        such as `abstract_params(config.model)`.
    """

    config: Config
    tokenizer: Tokenizer
    step: int
    path: Path
    read_params: Callable[[Any], Any]

    def read(self) -> Model:
        """Returns the model, with all of its parameters on the first device."""
        params = self.read_params(abstract_params(self.config.model))  # may change the step
        return Model(self.config, params, self.tokenizer, self.step, self.path)


def load(model: str | Path) -> Model:
    """Returns a model, with all of its parameters on the first device.

    Args:
      model: see the top of this file; for a workdir, the newest good step is read.

    Raises:
      UserError: if the folder is not a model.
      StorageError: if no checkpoint is good, or the requested step is damaged.
    """
    with open_model(model) as reader:
        if isinstance(reader.tokenizer, IdsTokenizer):
            _note(
                "note: this model takes and gives token ids instead of text: "
                f"{reader.tokenizer.reason}"
            )
        return reader.read()


@contextlib.contextmanager
def open_model(model: str | Path) -> Iterator[ModelReader]:
    """Opens a model as `load` does, but its parameters are read only on request, in the block."""
    path = _local(model)
    check_platforms()
    if (format_ := _format_of(path)) is not None:
        yield _foreign(path, format_)
        return
    directory, step = locate(path)
    with contextlib.closing(CheckpointStore(directory, lean=True, read_only=True)) as store:
        yield _native(store, step)


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
    """Returns the module that reads a folder of another program; None for one of our own, or none.

    Raises:
      UserError: if a file is a pointer of Git LFS instead.
    """
    if _is_native(path):
        return None
    refuse_lfs_pointers(path, _READ_FILES)
    return next((format_ for format_ in _FORMATS if format_.recognizes(path)), None)


def _foreign(path: Path, format_: Any) -> ModelReader:
    config = format_.read_config(path)
    tokenizer = format_.read_model_tokenizer(path, config, _note)
    data = dataclasses.replace(config.data, tokenizer=tokenizer.name)
    read_params = functools.partial(format_.read_params, path, config.model)
    return ModelReader(dataclasses.replace(config, data=data), tokenizer, 0, path, read_params)


def _native(store: CheckpointStore, step: int | None) -> ModelReader:
    if step is None:
        return _newest(store)
    if problem := store.damage(step):
        raise StorageError(f"checkpoint {store.directory / str(step)} is damaged ({problem})")
    return _step(store, step)


def _newest(store: CheckpointStore) -> ModelReader:
    _, reader = _of_newest(store, lambda step: _step(store, step))

    def read_params(abstract: Any) -> Any:
        def read(step: int) -> Any:
            return store.restore_params(step, abstract)

        reader.step, params = _of_newest(store, read, reader.step)
        reader.path = store.directory / str(reader.step)
        return params

    reader.read_params = read_params
    return reader


def _of_newest(
    store: CheckpointStore, read: Callable[[int], _T], step: int | None = None
) -> tuple[int, _T]:
    """Returns (the newest good step, what `read` returns of it).

    If a trainer saves another step while this one is read, it may remove this one. Then the newest
    is looked up again, a limited number of times.

    Args:
      store: the checkpoints of a run.
      read: reads a step; it raises StorageError if it cannot.
      step: the step to read first, if the newest was looked up before.
    """
    for looks_left in reversed(range(LOOKS)):
        if step is None and (step := store.newest_good()) is None:
            break
        try:
            return step, read(step)
        except StorageError:
            if not looks_left or not store.is_superseded(step):
                raise
        store.close()  # what Orbax has listed is out of date
        step = None
    raise StorageError(
        f"{store.directory} has no good checkpoint: the run has not saved one yet, or all of them "
        "were removed"
    )


def _step(store: CheckpointStore, step: int) -> ModelReader:
    meta = store.meta(step)
    config, tokenizer = config_lib.from_dict(meta["config"]), tokenizer_from_dict(meta["tokenizer"])
    read_params = functools.partial(store.restore_params, step)
    return ModelReader(config, tokenizer, step, store.directory / str(step), read_params)


def write_native(folder: Path, model: Model) -> None:
    """Writes a model as a workdir with one step.

    The step has no optimizer state: it can be loaded, but not resumed.

    Raises:
      StorageError: if the step cannot be written.
    """
    meta = {"config": config_lib.to_dict(model.config), "tokenizer": model.tokenizer.to_dict()}
    with contextlib.closing(CheckpointStore(folder / "checkpoints", lean=True)) as store:
        store.save(model.step, model.params, None, meta)
        store.wait()


def _local(model: str | Path) -> Path:
    """Returns the folder of a model, downloading it from the hub if the name is not a folder."""
    if not str(model):
        raise UserError("the model's path is empty: name a run's workdir or another model")
    path = resolve_path(model)
    if path.exists():
        return path
    problem = (
        f"no model at {model}: expected a run's workdir, a step's folder, or a folder in Hugging "
        "Face's or OpenAI's format"
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


def _is_native(path: Path) -> bool:
    return (path / "checkpoints").is_dir() or (path / "params").is_dir()


def locate(path: Path) -> tuple[Path, int | None]:
    """Returns (folder of checkpoints, step or None for the newest) of a model in our own format."""
    folder = path if is_remote(path) else path.resolve()  # the name of "." is empty
    if any((folder / name).exists() for name in _RUN_FILES):
        return folder / "checkpoints", None
    if folder.name.isdigit() and (folder / "params").is_dir():
        return folder.parent, int(folder.name)
    if folder.name == "checkpoints":
        return folder, None
    if folder.suffix in (".pt", ".pth", ".bin"):
        raise UserError(
            f"{path} is a file, but a model is a folder; for nanoGPT's ckpt.pt see {NANOGPT_DOCS}"
        )
    raise UserError(
        f"{path} is not a model: a run's workdir has a checkpoints/ folder, a step's folder is "
        "named by its number, Hugging Face's has a config.json, and OpenAI's has an hparams.json"
    )
