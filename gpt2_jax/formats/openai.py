"""OpenAI's released GPT-2 checkpoints: model.ckpt.*, hparams.json, encoder.json, vocab.bpe."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import NOT_JSON, UserError
from gpt2_jax.formats import interchange
from gpt2_jax.formats.tensor_bundle import TensorBundle
from gpt2_jax.tokenizers import bpe
from gpt2_jax.tokenizers.tokenizer import GPT2Tokenizer, Tokenizer

_HPARAMS = "hparams.json"
# Key of hparams.json -> knob.
_KEYS = {
    "n_vocab": "vocab_size",
    "n_ctx": "context_length",
    "n_embd": "d_model",
    "n_head": "num_heads",
    "n_layer": "num_layers",
}


def recognizes(folder: Path) -> bool:
    """Whether a folder looks like one of OpenAI's release."""
    return (folder / _HPARAMS).is_file()


def read_config(folder: Path) -> Config:
    """The config of a released model, in float32.

    Raises:
      UserError: for an hparams.json that is broken or knows more than GPT-2's five numbers.
    """
    path = folder / _HPARAMS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        unknown = sorted(values.keys() - _KEYS.keys())
        model = {knob: values[key] for key, knob in _KEYS.items()}
    except (*NOT_JSON, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not GPT-2's: {error}") from error
    if unknown:
        raise UserError(f"{path}: {unknown[0]} is not one of GPT-2's hyperparameters")
    return interchange.imported_config(model, path)


def read_model_tokenizer(folder: Path, config: Config) -> Tokenizer:
    """GPT-2's tokenizer, which the folder's own files may not contradict."""
    for name in ("encoder.json", "vocab.bpe"):
        path = folder / name
        if path.is_file() and _sha256(path.read_bytes()) != _sha256(bpe.gpt2_file(name)):
            raise UserError(f"{path} is not GPT-2's: a vocabulary of one's own can't be read here")
    return GPT2Tokenizer(config.model.vocab_size)


def read_params(folder: Path, config: ModelConfig, abstract: Any) -> Any:
    """Scanned parameters from a folder's model.ckpt, on the shardings of `abstract`.

    Raises:
      UserError: for files that are missing or broken, or hold another model.
    """
    source = _Checkpoint(_prefix(folder))
    return interchange.read_params(source, _name, config, abstract, str(folder))


class _Checkpoint:
    """The model's variables; convolution kernels lose their leading axis of one."""

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
    """The checkpoint that the folder holds, without the endings of its files."""
    found = sorted(folder.glob("*.index"))
    if len(found) != 1:
        raise UserError(f"{folder} has {len(found)} *.index files, expected one: model.ckpt.index")
    return found[0].with_suffix("")


def _name(path: tuple[str, ...], layer: int | None) -> str:
    """The variable of a leaf: model/h0/attn/c_attn/w."""
    parts = [{"kernel": "w", "bias": "b", "scale": "g"}.get(part, part) for part in path]
    if layer is not None:
        parts[0] = f"h{layer}"
    return "/".join(["model", *parts])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
