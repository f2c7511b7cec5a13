"""Reads and writes Hugging Face's format: a folder of config.json, safetensors and tokenizer files.

Every key of a config that changes the function is either honored or refused by name, never ignored.
PyTorch pickles are refused, because opening one runs whatever code it contains.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import NOT_JSON, StorageError, UserError
from gpt2_jax.formats import interchange
from gpt2_jax.tokenizers.huggingface import read_tokenizer, write_tokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth")

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
# Keys that change the function in ways this model cannot, with the value that changes nothing.
# `reorder_and_upcast_attn` is not among them, because scores are always float32.
_REFUSED = {"add_cross_attention": False, "pruned_heads": {}, "quantization_config": None}

# Old checkpoints store two buffers beside the weights: the causal mask and the masking value.
_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
_PREFIX = "transformer."
_DTYPES = ("F32", "F16", "BF16")  # each exact in float32


def recognizes(folder: Path) -> bool:
    """Returns whether a folder looks like a model in this format."""
    patterns = ("*.safetensors", _INDEX, *_PICKLES)
    if any(any(folder.glob(pattern)) for pattern in patterns):
        return True
    config = folder / "config.json"
    return config.is_file() and '"model_type"' in config.read_text("utf-8", errors="replace")


def read_config(folder: Path) -> Config:
    """Returns the config of a model, computed in float32; sections other than `model` are defaults.

    Raises:
      UserError: if the weights are missing, or the config is missing, malformed or asks for a
        feature that GPT-2 does not have.
    """
    _files(folder)  # the worst problem is reported first: the folder may hold only a pickle
    values, path = _read_config(folder), folder / "config.json"
    model = {knob: values.get(key, default) for knob, (key, default) in _KEYS.items()}
    activation = str(model["activation"])
    model["activation"] = _ACTIVATION_ALIASES.get(activation, activation)
    if model["activation"] not in config_lib.ACTIVATIONS:
        raise UserError(
            f"{path}: activation_function={model['activation']!r} is not supported; supported "
            f"activations: {', '.join(config_lib.ACTIVATIONS)}"
        )
    return interchange.imported_config(model, path)


def read_model_tokenizer(folder: Path, config: Config) -> Tokenizer:
    """Returns the tokenizer of a model's folder; see `read_tokenizer`."""
    eos = _read_config(folder).get("eos_token_id")
    return read_tokenizer(folder, config.model.vocab_size, eos)


def read_params(folder: Path, config: ModelConfig, abstract: Any) -> Any:
    """Reads scanned parameters from a folder's safetensors onto the shardings of `abstract`.

    Raises:
      UserError: if files are missing, damaged or unsafe, or hold a different model.
    """
    source = _Safetensors(folder)
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
    for knob, value in _FIXED.items():
        if getattr(config, knob) != value:
            raise UserError(
                f"model.{knob}={getattr(config, knob)} is not part of Hugging Face's GPT-2: only "
                f"models with model.{knob}={value} can be exported"
            )
    end = {"bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot}
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
    write_tokenizer(tokenizer, folder, config.context_length)
    named = {
        name if name == "lm_head.weight" else _PREFIX + name: np.ascontiguousarray(tensor)
        for name, tensor in interchange.named_tensors(params, _name, config)
    }
    try:
        save_file(named, folder / _WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise StorageError(f"cannot write {folder / _WEIGHTS}: {error}") from error
    # safetensors creates a file that only its owner may read.
    shutil.copymode(folder / "config.json", folder / _WEIGHTS)


def _name(path: tuple[str, ...], layer: int | None) -> str:
    """Returns the name transformers gives a leaf, without the prefix: h.0.attn.c_attn.weight."""
    names = [{"kernel": "weight", "scale": "weight"}.get(name, name) for name in path]
    if len(names) == 1:  # an embedding table is a leaf at the top of the tree
        names.append("weight")
    if layer is not None:
        names.insert(1, str(layer))
    return ".".join(names)


class _Safetensors:
    """Reads the tensors of a folder's safetensors files, by their names without the prefix."""

    def __init__(self, folder: Path) -> None:
        """Reads the headers; safetensors itself checks that they match the file."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._locations: dict[str, tuple[Path, str]] = {}
        for path, indexed in _files(folder).items():
            with _opened(path) as file:
                names = set(file.keys())
                if indexed is not None and (missing := sorted(indexed - names)):
                    raise UserError(
                        f"{path} does not have the tensor {missing[0]}, which the index lists in it"
                    )
                for full_name in sorted(names if indexed is None else indexed):
                    self._add(path, full_name, file.get_slice(full_name))

    def _add(self, path: Path, full_name: str, header: Any) -> None:
        name = full_name.removeprefix(_PREFIX)
        if _BUFFER.fullmatch(name):
            return
        if name in self._locations:
            raise UserError(
                f"{path} holds {name} twice, as {full_name} and {self._locations[name][1]}"
            )
        if header.get_dtype() not in _DTYPES:
            raise UserError(
                f"{path}: {full_name} has the dtype {header.get_dtype()}; it must be one "
                f"of {', '.join(_DTYPES)}"
            )
        self.shapes[name] = tuple(header.get_shape())
        self._locations[name] = path, full_name

    def read(self, name: str) -> np.ndarray:
        path, full_name = self._locations[name]
        with _opened(path) as file:
            return file.get_tensor(full_name)


def _files(folder: Path) -> dict[Path, set[str] | None]:
    """Returns {weight file: the tensors that an index expects in it, or None without an index}."""
    index = folder / _INDEX
    if index.is_file():
        indexed: dict[Path, set[str] | None] = {}
        for name, file in _weight_map(index).items():
            # The index is untrusted: it must not name files outside this folder.
            if Path(file).name != file or not file.endswith(".safetensors"):
                raise UserError(f"{index} names {file!r}, which is not a file of its folder")
            indexed.setdefault(folder / file, set()).add(name)  # pyright: ignore
        return indexed
    if (folder / _WEIGHTS).is_file():
        return {folder / _WEIGHTS: None}
    weight_files = sorted(folder.glob("*.safetensors"))
    if len(weight_files) == 1:
        return {weight_files[0]: None}
    if weight_files:
        raise UserError(f"{folder} has {len(weight_files)} safetensors files but no {_INDEX}")
    pickles = [path.name for pattern in _PICKLES for path in sorted(folder.glob(pattern))]
    if pickles:
        raise UserError(
            f"{folder} has only a PyTorch pickle ({pickles[0]}), and opening one runs the code in "
            'it; if you trust it, convert it: python -c "from transformers import '
            f"GPT2LMHeadModel as M; M.from_pretrained('{folder}').save_pretrained('SAFE')\""
        )
    raise UserError(f"{folder} has a config.json but no {_WEIGHTS}")


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not weight_map or not all(isinstance(file, str) for file in weight_map.values()):
            raise TypeError("weight_map must map tensors to files")
        return weight_map
    except (*NOT_JSON, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is not an index of weights: {error}") from error


class _opened:
    """Opens a safetensors file; failures are a UserError that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Any:
        try:
            self._file = safe_open(self._path, framework="np")
            return self._file.__enter__()
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self._path} is not a complete safetensors file: {error}") from error

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)


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
