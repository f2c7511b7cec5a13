"""Reads and writes Hugging Face's format: a folder of config.json, safetensors and tokenizer files.

Every key of a config that changes the function is either honored or refused by name, never ignored.
PyTorch pickles are refused, because opening one runs whatever code it contains.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import NOT_JSON, StorageError, UserError, print_stderr, short_repr
from gpt2_jax.formats import interchange
from gpt2_jax.formats.pickles import PICKLES
from gpt2_jax.formats.safetensors_files import (
    INDEX,
    PREFIX,
    WEIGHTS,
    SafetensorsFiles,
    weight_files,
)
from gpt2_jax.tokenizers.base import UnsupportedTokenizer
from gpt2_jax.tokenizers.huggingface import read_tokenizer, write_tokenizer
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.special_tokens import special_ids
from gpt2_jax.tokenizers.tokenizer import Tokenizer

# Knob of ModelConfig -> (key of GPT2Config, default of that key in transformers).
_KEYS: dict[str, tuple[str, Any]] = {
    "num_layers": ("n_layer", 12),
    "num_heads": ("n_head", 12),
    "d_model": ("n_embd", 768),
    "context_length": ("n_positions", 1024),
    "vocab_size": ("vocab_size", 50257),
    "dropout": ("resid_pdrop", 0.1),
    "mlp_dim": ("n_inner", None),
    "activation": ("activation_function", "gelu_new"),
    "layer_norm_epsilon": ("layer_norm_epsilon", 1e-5),
    "scale_attn_weights": ("scale_attn_weights", True),
    "scale_attn_by_inverse_layer_idx": ("scale_attn_by_inverse_layer_idx", False),
    "tie_embeddings": ("tie_word_embeddings", True),
}
# Alternative names that GPT2Config accepts for its keys.
_ALIASES = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
}
# Names under which transformers has the same activation again.
_ACTIVATION_ALIASES = {
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_python": "gelu",
    "swish": "silu",
}
# Knobs that Hugging Face's GPT-2 does not have, with the only value that it can compute: GPT-2's.
_FIXED = {
    field.name: field.default
    for field in dataclasses.fields(ModelConfig)
    if field.metadata["changes_function"] and field.name not in _KEYS
}
EXPORTED_ACTIVATIONS = tuple(
    name for name in config_lib.ACTIVATIONS if name not in config_lib.GATED_ACTIVATIONS
)
# Keys that change the function in ways this model cannot, with the value that changes nothing.
# `reorder_and_upcast_attn` is not among them, because scores are always float32.
_REFUSED = {"add_cross_attention": False, "pruned_heads": {}, "quantization_config": None}


def recognizes(folder: Path) -> bool:
    """Returns whether a folder looks like a model in this format."""
    patterns = ("*.safetensors", INDEX, *PICKLES)
    if any(any(folder.glob(pattern)) for pattern in patterns):
        return True
    config = folder / "config.json"
    return config.is_file() and b'"model_type"' in config.read_bytes()


def read_config(folder: Path) -> Config:
    """Returns the config of a model, computed in float32; sections other than `model` are defaults.

    Raises:
      UserError: if the weights are missing, or the config is missing, malformed or asks for a
        feature that GPT-2 does not have.
    """
    weight_files(folder)  # the worst problem is reported first: the folder may hold only a pickle
    values, path = _read_config(folder), folder / "config.json"
    model = {knob: values.get(key, default) for knob, (key, default) in _KEYS.items()}
    activation = str(model["activation"])
    model["activation"] = _ACTIVATION_ALIASES.get(activation, activation)
    if model["activation"] not in EXPORTED_ACTIVATIONS:
        raise UserError(
            f"{path}: activation_function={model['activation']!r} is not supported; supported "
            f"activations: {', '.join(EXPORTED_ACTIVATIONS)}"
        )
    return interchange.imported_config(model, path)


def read_model_tokenizer(
    folder: Path, config: Config, log: Callable[[str], None] = print_stderr
) -> Tokenizer:
    """Returns the tokenizer of a model's folder, which takes only ids if it is of another kind.

    Args:
      folder: the model's folder.
      config: the model's config.
      log: called with a line for what was assumed; see `read_tokenizer`.

    Raises:
      UserError: if the ids that begin and end a text are not ids.
    """
    size = config.model.vocab_size
    eos, bos = _generation_ids(folder, size, log)
    try:
        return read_tokenizer(folder, size, eos, bos[0] if bos else None, log)
    except UnsupportedTokenizer as error:
        return IdsTokenizer(size, str(error), bos[0] if bos else None, eos)


def _generation_ids(
    folder: Path, vocab_size: int, log: Callable[[str], None]
) -> tuple[list[int], list[int]]:
    """Returns the ids that end and that begin a text, as transformers' `generate` finds them.

    A generation_config.json replaces what config.json says, even where it says nothing. Ids that
    the model does not have are logged and left out.
    """
    path = folder / "generation_config.json"
    if path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except NOT_JSON as error:
            raise UserError(f"{path} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path} is not a JSON object")
    else:
        path, values = folder / "config.json", _read_config(folder)
    ids = []
    for key in ("eos_token_id", "bos_token_id"):
        value = values.get(key)
        try:
            ids.append(special_ids(value, vocab_size))
        except UserError as error:
            raise UserError(f"{path}: {key}={error}") from error
        if len(ids[-1]) < len(set(value) if isinstance(value, list) else {value} - {None}):
            log(
                f"note: {path}: {key}={short_repr(value)} is not used where it is no id of this "
                f"model, which has the ids from 0 to {vocab_size - 1}"
            )
    return ids[0], ids[1]


def read_params(folder: Path, config: ModelConfig, abstract: Any) -> Any:
    """Reads scanned parameters from a folder's safetensors onto the shardings of `abstract`.

    Raises:
      UserError: if files are missing, damaged or unsafe, or hold a different model.
    """
    source = SafetensorsFiles(folder)
    if config.tie_embeddings and "lm_head.weight" in source.shapes:
        # Some exporters write the tied tensor twice.
        if not np.array_equal(source.read("lm_head.weight"), source.read("wte.weight")):
            raise UserError(
                f"{folder}: config.json ties the embeddings, but lm_head.weight differs from "
                'wte.weight: set "tie_word_embeddings": false if the head has its own weights'
            )
        del source.shapes["lm_head.weight"]
    return interchange.read_params(source, _name, config, abstract, str(folder))


def write(folder: Path, config: ModelConfig, params: Any, tokenizer: Tokenizer) -> None:
    """Writes config, weights, generation config and tokenizer into an empty folder.

    Weights are float32 in one file. `GPT2LMHeadModel.from_pretrained(folder)` loads them.

    Raises:
      UserError: if the model has a feature that Hugging Face's GPT-2 does not have.
      StorageError: if the weights cannot be written, as on a full disk.
    """
    check_exportable(config)
    ends = sorted(tokenizer.ends)
    eos = ends if len(ends) > 1 else ends[0] if ends else None
    end = {"bos_token_id": tokenizer.bos, "eos_token_id": eos}
    content = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{key: getattr(config, knob) for knob, (key, _) in _KEYS.items()},
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "n_ctx": config.context_length,
        "initializer_range": 0.02,
        "torch_dtype": "float32",
        "use_cache": True,
        **end,
    }
    _write_json(folder / "config.json", content)
    _write_json(folder / "generation_config.json", {"_from_model_config": True, **end})
    if isinstance(tokenizer, IdsTokenizer):
        print_stderr(
            "note: no tokenizer is written, because the model's cannot be read "
            f"({tokenizer.reason}): copy the original files into the folder"
        )
        # Without this class, GPT-2's tokenizer would be assumed for a model of its size.
        _write_json(
            folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}
        )
    else:
        write_tokenizer(tokenizer, folder, config.context_length)
    named = {
        name if name == "lm_head.weight" else PREFIX + name: np.ascontiguousarray(tensor)
        for name, tensor in interchange.named_tensors(params, _name, config)
    }
    try:
        save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise StorageError(f"cannot write {folder / WEIGHTS}: {error}") from error
    # safetensors creates a file that only its owner may read.
    shutil.copymode(folder / "config.json", folder / WEIGHTS)


def check_exportable(config: ModelConfig) -> None:
    """Raises UserError if a model has a feature that Hugging Face's GPT-2 does not have."""
    for knob, value in _FIXED.items():
        if getattr(config, knob) != value:
            raise UserError(
                f"model.{knob}={getattr(config, knob)} is not part of Hugging Face's GPT-2: only "
                f"models with model.{knob}={value} can be exported"
            )
    if config.is_gated:
        raise UserError(
            f"model.activation={config.activation} is not part of Hugging Face's GPT-2: only "
            f"models with one of {', '.join(EXPORTED_ACTIVATIONS)} can be exported"
        )


def _name(path: tuple[str, ...], layer: int | None) -> str:
    """Returns the name transformers gives a leaf, without the prefix: h.0.attn.c_attn.weight."""
    names = [{"kernel": "weight", "scale": "weight"}.get(name, name) for name in path]
    if len(names) == 1:  # an embedding table is a leaf at the top of the tree
        names.append("weight")
    if layer is not None:
        names.insert(1, str(layer))
    return ".".join(names)


def _read_config(folder: Path) -> Mapping[str, Any]:
    """Returns config.json with its aliases resolved, after checking that it describes a GPT-2."""
    path = folder / "config.json"
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} has weights but no config.json") from None
    except NOT_JSON as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.get("model_type") != "gpt2":
        kind = values.get("model_type") if isinstance(values, dict) else None
        raise UserError(f"{path} has model_type={kind!r}: only 'gpt2' can be read")
    for key, harmless in _REFUSED.items():
        if values.get(key, harmless) not in (harmless, None):
            raise UserError(f"{path}: {key}={str(values[key])[:60]} is not supported")
    return {_ALIASES.get(str(key), str(key)): value for key, value in values.items()}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
