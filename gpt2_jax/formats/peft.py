"""Reads and writes adapters in PEFT's format: adapter_config.json and adapter_model.safetensors.

PEFT stores A as [r, in] and B as [out, r], one pair for each linear layer of each block, and names
the base instead of holding it. Settings that change the function are honored or refused by name.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from gpt2_jax.config import ModelConfig
from gpt2_jax.config.lora import LORA_TARGETS, parse_targets
from gpt2_jax.errors import NOT_JSON, StorageError, UserError, print_stderr, short_repr
from gpt2_jax.files.lfs import refuse_lfs_pointers
from gpt2_jax.formats import huggingface, interchange
from gpt2_jax.formats.model import Model
from gpt2_jax.formats.pickles import refuse_pickles
from gpt2_jax.formats.safetensors_files import SafetensorsFiles
from gpt2_jax.model.lora import LORA_A, LORA_B
from gpt2_jax.model.trainable import split, trained_names

SETTINGS = "adapter_config.json"
ADAPTERS = "adapter_model.safetensors"
_PREFIX = "base_model.model.transformer.h."
_SUFFIXES = {LORA_A: "lora_A.weight", LORA_B: "lora_B.weight"}
_EMBEDDINGS = ("wte", "wpe", "lm_head")
# Key -> (the values that change nothing, what the key asks for).
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "bias": (("none", None), "trained biases"),
    # Others, such as pissa, change the weights of the base, too.
    "init_lora_weights": (
        (True, False, None, "gaussian", "eva", "orthogonal"),
        "a base with other weights",
    ),
    "revision": ((None, "main"), "a version of the base"),
    "use_dora": ((False, None), "DoRA"),
    "use_qalora": ((False, None), "QA-LoRA"),
    "modules_to_save": ((None, []), "modules that are trained as a whole"),
    "rank_pattern": (({}, None), "ranks that differ between layers"),
    "alpha_pattern": (({}, None), "factors that differ between layers"),
    "layers_to_transform": ((None, []), "adapters in some layers only"),
    "layer_replication": ((None, []), "repeated layers"),
    "target_parameters": ((None, []), "adapters of parameters by name"),
    "trainable_token_indices": ((None, [], {}), "trained tokens"),
    "lora_bias": ((False, None), "biases of adapters"),
    "alora_invocation_tokens": ((None, []), "adapters that begin at a token"),
}


class Settings(NamedTuple):
    """Holds what an adapter_config.json says.

    Attributes:
      base: the name of the model that the adapters belong to.
      knobs: the knobs of the section `model` that describe the adapters.
    """

    base: str
    knobs: dict[str, Any]


def recognizes(folder: Path) -> bool:
    """Returns whether a folder looks like adapters in this format."""
    return (folder / SETTINGS).is_file()


def read_settings(folder: Path) -> Settings:
    """Returns the settings of a folder's adapters.

    Raises:
      UserError: if they are malformed, or ask for what this package cannot compute.
    """
    values, path = _read_settings(folder), folder / SETTINGS
    base = values.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{path} does not name the model that the adapters belong to: set "
            "base_model_name_or_path to its folder, or its id on the Hugging Face hub"
        )
    rank: Any = values.get("r")
    alpha: Any = values.get("lora_alpha")
    dropout: Any = values.get("lora_dropout", 0)
    if type(rank) is not int or rank < 1:
        raise UserError(f"{path}: r={short_repr(rank)} must be a whole number of 1 or more")
    if not _is_number(alpha) or not alpha > 0:
        raise UserError(f"{path}: lora_alpha={short_repr(alpha)} must be a number above 0")
    if not _is_number(dropout) or not 0 <= dropout < 1:
        raise UserError(f"{path}: lora_dropout={short_repr(dropout)} must be from 0 to below 1")
    if values.get("use_rslora"):  # alpha / sqrt(r) in place of alpha / r
        alpha *= math.sqrt(rank)
    if not (folder / ADAPTERS).is_file():
        refuse_pickles(folder)
        raise UserError(f"{folder} has an {SETTINGS} but no {ADAPTERS}")
    targets = _targets(folder, values.get("target_modules"))
    knobs = {"lora_rank": rank, "lora_alpha": float(alpha), "lora_dropout": float(dropout)}
    return Settings(base, knobs | {"lora_targets": ",".join(targets)})


def check_targets(folder: Path, settings: Settings, base: ModelConfig) -> None:
    """Checks that a folder's adapters are those of a model of the base's size, and no others.

    Raises:
      UserError: naming the tensor that is missing or too many.
    """
    targets = settings.knobs["lora_targets"].split(",")
    expected = {
        f"{_PREFIX}{layer}.{target}.{suffix}"
        for layer in range(base.num_layers)
        for target in targets
        for suffix in _SUFFIXES.values()
    }
    found = SafetensorsFiles(folder, ADAPTERS).shapes.keys()
    where = f"{folder / ADAPTERS}: the base {settings.base} has {base.num_layers} layers, and"
    if missing := sorted(expected - found):
        raise UserError(f"{where} the tensor {missing[0]} is missing")
    if extra := sorted(found - expected):
        raise UserError(f"{where} none for the tensor {extra[0]}")


def read_adapters(folder: Path, config: ModelConfig, abstract: Any) -> Any:
    """Reads the adapters of scanned parameters onto the shardings of `abstract`.

    Args:
      folder: in PEFT's format.
      config: of the model with the adapters.
      abstract: ShapeDtypeStructs of the adapters alone.

    Raises:
      UserError: if the file is damaged, or has other shapes.
    """
    return interchange.read_params(_Transposed(folder), _name, config, abstract, str(folder))


def write(folder: Path, model: Model) -> None:
    """Writes a model's adapters into an empty folder, for `PeftModel.from_pretrained`.

    Raises:
      UserError: if the model has no adapters, or a feature that Hugging Face's GPT-2 does not have.
      StorageError: if the weights cannot be written.
    """
    config = model.config.model
    if not config.lora_rank or model.base is None:
        raise UserError(
            f"{model.path} has no adapters (LoRA), which --to peft writes: write the whole model "
            "with --to hf"
        )
    huggingface.check_exportable(config)
    base = Path(model.base.name)
    if base.is_dir() and not huggingface.recognizes(base):
        print_stderr(
            f"note: PEFT reads only a base in Hugging Face's format, which {base} is not: write it "
            "with gpt2-jax convert --to hf, and load the adapters on top of that"
        )
    of_adapters, _ = split(model.params, trained_names(model.config, model.params))
    tensors = {
        name: np.ascontiguousarray(tensor.T)
        for name, tensor in interchange.named_tensors(of_adapters, _name, config)
    }
    alpha = config.lora_alpha
    content = {
        "base_model_name_or_path": model.base.name,
        "bias": "none",
        "fan_in_fan_out": True,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": config.lora_dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": config.lora_rank,
        "target_modules": _in_order(parse_targets(config.lora_targets)),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    text = json.dumps(content, indent=2) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8")
    try:
        save_file(tensors, folder / ADAPTERS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise StorageError(f"cannot write {folder / ADAPTERS}: {error}") from error
    # safetensors creates a file that only its owner may read.
    shutil.copymode(folder / SETTINGS, folder / ADAPTERS)


class _Transposed:
    """Gives A as [in, r] and B as [r, out]."""

    def __init__(self, folder: Path) -> None:
        self._files = SafetensorsFiles(folder, ADAPTERS)
        self.shapes = {name: shape[::-1] for name, shape in self._files.shapes.items()}

    def read(self, name: str) -> np.ndarray:
        return self._files.read(name).T


def _read_settings(folder: Path) -> dict[str, Any]:
    """Returns adapter_config.json, after checking that it asks for plain LoRA."""
    refuse_lfs_pointers(folder, (SETTINGS, ADAPTERS))
    path = folder / SETTINGS
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except NOT_JSON as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        kind = values.get("peft_type") if isinstance(values, dict) else None
        raise UserError(f"{path} has peft_type={kind!r}: only 'LORA' can be read")
    if (task := values.get("task_type")) not in ("CAUSAL_LM", None):
        raise UserError(f"{path} has task_type={task!r}: only 'CAUSAL_LM' can be read")
    for key, (harmless, what) in _REFUSED.items():
        if (value := values.get(key)) not in harmless:
            raise UserError(f"{path}: {key}={short_repr(value)} asks for {what}: not supported")
    return values


def _targets(folder: Path, given: Any) -> list[str]:
    """Returns the linear layers that have adapters in the file, and checks the settings' names.

    PEFT takes a list of names for suffixes, so that c_proj means that of attention and of the MLP.
    """
    path = folder / SETTINGS
    names = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    if embedding := next((name for name in names if name in _EMBEDDINGS), None):
        raise UserError(
            f"{path}: target_modules names {embedding}: adapters of embeddings are not supported"
        )
    found = set[str]()
    for tensor in SafetensorsFiles(folder, ADAPTERS).shapes:
        target = next(
            (t for t in LORA_TARGETS for s in _SUFFIXES.values() if tensor.endswith(f".{t}.{s}")),
            None,
        )
        if target is None or not tensor.startswith(_PREFIX):
            raise UserError(
                f"{folder / ADAPTERS} has the tensor {tensor}, which is no adapter of a linear "
                f"layer of GPT-2: {', '.join(LORA_TARGETS)}"
            )
        found.add(target)
    for name in names if isinstance(given, list) else ():
        if not any(target == name or target.endswith(f".{name}") for target in found):
            raise UserError(
                f"{path}: target_modules names {short_repr(name)}, of which {ADAPTERS} has no "
                "adapter"
            )
    if not found:
        raise UserError(f"{folder / ADAPTERS} has no adapters")
    return _in_order(found)


def _in_order(targets: Any) -> list[str]:
    return [target for target in LORA_TARGETS if target in targets]


def _name(path: tuple[str, ...], layer: int | None) -> str:
    """Returns PEFT's name of an adapter's leaf: ...h.0.attn.c_attn.lora_A.weight."""
    return f"{_PREFIX}{layer}.{'.'.join(path[1:-1])}.{_SUFFIXES[path[-1]]}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
