"""Reads OpenAI's released checkpoints: model.ckpt.*, hparams.json, encoder.json, vocab.bpe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import NOT_JSON, UserError, print_stderr
from gpt2_jax.formats import interchange
from gpt2_jax.formats.tensor_bundle import TensorBundle
from gpt2_jax.tokenizers import vocabulary
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_HPARAMS = "hparams.json"
_VOCABULARY = ("encoder.json", "vocab.bpe")
# Key of hparams.json -> knob of ModelConfig.
_KEYS = {
    "n_vocab": "vocab_size",
    "n_ctx": "context_length",
    "n_embd": "d_model",
    "n_head": "num_heads",
    "n_layer": "num_layers",
}


def recognizes(folder: Path) -> bool:
    """Returns whether a folder looks like one of OpenAI's releases."""
    return (folder / _HPARAMS).is_file()


def read_config(folder: Path) -> Config:
    """Returns the config of a released model, computed in float32.

    Raises:
      UserError: if hparams.json is malformed or has keys beyond GPT-2's five.
    """
    path = folder / _HPARAMS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        unknown = sorted(values.keys() - _KEYS.keys())
        model = {knob: values[key] for key, knob in _KEYS.items()}
    except (*NOT_JSON, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not the hparams.json of a GPT-2: {error}") from error
    if unknown:
        raise UserError(f"{path}: {unknown[0]} is not one of GPT-2's hyperparameters")
    return interchange.imported_config(model, path)


def read_model_tokenizer(
    folder: Path, config: Config, log: Callable[[str], None] = print_stderr
) -> Tokenizer:
    """Returns GPT-2's tokenizer, or one that takes only ids if the folder's vocabulary is another.

    Args:
      folder: the model's folder.
      config: the model's config.
      log: called with a line if GPT-2's tokenizer is assumed, because there are no files of one.
    """
    size = config.model.vocab_size
    paths = [path for name in _VOCABULARY if (path := folder / name).is_file()]
    for path in paths:
        if _sha256(path.read_bytes()) != _sha256(vocabulary.gpt2_file(path.name)):
            return IdsTokenizer(size, f"{path} differs from GPT-2's own file")
    if size < GPT2Tokenizer().vocab_size:
        return IdsTokenizer(size, f"{folder / _HPARAMS}: n_vocab={size} is less than GPT-2's 50257")
    if not paths:
        log(f"note: {folder} has no {_VOCABULARY[0]}: GPT-2's tokenizer is assumed")
    return GPT2Tokenizer(size)


def read_params(folder: Path, config: ModelConfig, abstract: Any) -> Any:
    """Reads scanned parameters from a folder's model.ckpt onto the shardings of `abstract`.

    Raises:
      UserError: if files are missing or damaged, or hold a different model.
    """
    source = _Checkpoint(_prefix(folder))
    return interchange.read_params(source, _name, config, abstract, str(folder))


class _Checkpoint:
    """Reads the model's variables; convolution kernels lose their leading axis of size one."""

    def __init__(self, prefix: Path) -> None:
        self._bundle = TensorBundle(prefix)
        self.shapes = {
            name: shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
            for name, shape in self._bundle.shapes.items()
            if name.startswith("model/")
        }

    def read(self, name: str) -> np.ndarray:
        return self._bundle.read(name).reshape(self.shapes[name])


def _prefix(folder: Path) -> Path:
    """Returns the path of the folder's checkpoint without the suffixes of its files."""
    indexes = sorted(folder.glob("*.index"))
    if len(indexes) != 1:
        raise UserError(
            f"{folder} has {len(indexes)} *.index files, expected one: model.ckpt.index"
        )
    return indexes[0].with_suffix("")


def _name(path: tuple[str, ...], layer: int | None) -> str:
    """Returns the variable of a leaf: model/h0/attn/c_attn/w."""
    names = [{"kernel": "w", "bias": "b", "scale": "g"}.get(name, name) for name in path]
    if layer is not None:
        names[0] = f"h{layer}"
    return "/".join(["model", *names])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
