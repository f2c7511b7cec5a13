"""Converts between scanned parameters and the named matrices of other programs' files.

Hugging Face's and OpenAI's files have one tensor per layer, while scanned parameters stack the
layers of a leaf, and they have flat kernels [in, out], while our kernels have an axis of
heads. The conversion stacks and reshapes; no value changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.model.lora import LORA_A, LORA_B

# (path of a leaf, layer or None outside the blocks) -> the name of its tensor in a file.
Naming = Callable[[tuple[str, ...], int | None], str]


class TensorSource(Protocol):
    """Gives tensors by name, each read when it is requested."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Returns the shape of every tensor by name."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor, in a dtype that float32 represents exactly."""
        ...


def imported_config(model: Mapping[str, Any], where: Path) -> Config:
    """Returns the config of a model that another program made, computed in float32.

    Args:
      model: the values of the section `model`.
      where: the file that they come from, for error messages.

    Raises:
      UserError: if a value is out of range.
    """
    try:
        return config_lib.from_dict({"model": model, "compute": {"dtype": "float32"}})
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


class _Leaf(NamedTuple):
    """Describes a leaf of the scanned parameters, and the tensors it has in a file."""

    path: tuple[str, ...]
    shape: tuple[int, ...]  # the shape of one of its tensors in a file
    layers: tuple[int | None, ...]  # one tensor for each; (None,) outside the blocks


def read_params(
    source: TensorSource, naming: Naming, config: ModelConfig, abstract: Any, where: str
) -> Any:
    """Assembles scanned parameters, leaf by leaf; the padding rows of tables are zero.

    Args:
      source: the tensors of the file.
      naming: gives the name of each leaf's tensors.
      config: the model.
      abstract: ShapeDtypeStructs with the shardings to put the leaves on.
      where: the name of the source in error messages.

    Raises:
      UserError: if a tensor is missing, unexpected or has the wrong shape.
    """
    if config.num_layers > len(source.shapes):  # checked before a huge list of names is made
        raise UserError(
            f"{where} has {len(source.shapes)} tensors, too few for the {config.num_layers} layers "
            "of its config"
        )
    leaves = [_leaf(path, leaf, config) for path, leaf in _with_paths(abstract)]
    _check(source, {naming(x.path, i): x.shape for x in leaves for i in x.layers}, where)

    def assemble(leaf: _Leaf, target: Any) -> jax.Array:
        names = [naming(leaf.path, layer) for layer in leaf.layers]
        whole = np.zeros(target.shape, target.dtype)
        if leaf.layers == (None,):
            tensor = source.read(names[0])
            whole[: tensor.shape[0]] = tensor.reshape(-1, *target.shape[1:])
        else:
            for i, name in enumerate(names):
                whole[i] = source.read(name).reshape(target.shape[1:])
        # Every process takes the slices that its own devices hold.
        return jax.make_array_from_callback(
            target.shape, target.sharding, lambda index: whole[index]
        )

    targets = [target for _, target in _with_paths(abstract)]
    arrays = [assemble(leaf, target) for leaf, target in zip(leaves, targets, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(abstract), arrays)


def named_tensors(
    params: Any, naming: Naming, config: ModelConfig
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, tensor) of every tensor without its padding: the inverse of `read_params`.

    On the CPU the tensors are views of the parameters and take no additional memory.
    """
    for path, array in _with_paths(params):
        leaf = _leaf(path, array, config)
        whole = np.asarray(array)
        for layer in leaf.layers:
            tensor = whole[: leaf.shape[0]] if layer is None else whole[layer]
            yield naming(path, layer), tensor.reshape(leaf.shape)


def _leaf(path: tuple[str, ...], leaf: Any, config: ModelConfig) -> _Leaf:
    if path[0] in ("wte", "lm_head"):
        return _Leaf(path, (config.vocab_size, config.d_model), (None,))
    if path[0] != "h":
        return _Leaf(path, tuple(leaf.shape), (None,))
    shape = leaf.shape[1:]
    if path[-1] == "kernel":
        inputs = 2 if path[-3:-1] == ("attn", "c_proj") else 1  # heads and head width
        shape = (math.prod(shape[:inputs]), math.prod(shape[inputs:]))
    elif path[-1] == LORA_A:  # the rank is its last axis, and the first of the other
        shape = (math.prod(shape[:-1]), shape[-1])
    elif path[-1] == LORA_B:
        shape = (shape[0], math.prod(shape[1:]))
    else:
        shape = (math.prod(shape),)
    return _Leaf(path, shape, tuple(range(config.num_layers)))


def _check(source: TensorSource, expected: dict[str, tuple[int, ...]], where: str) -> None:
    if missing := [name for name in expected if name not in source.shapes]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{where} does not have the tensor {missing[0]}{more}")
    if extra := [name for name in source.shapes if name not in expected]:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise UserError(f"{where} has a tensor that GPT-2 does not have: {extra[0]}{more}")
    for name, shape in expected.items():
        if tuple(source.shapes[name]) != shape:
            raise UserError(
                f"{where}: {name} has the shape {list(source.shapes[name])}, but its config "
                f"requires {list(shape)}"
            )


def _with_paths(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(tuple(entry.key for entry in path), leaf) for path, leaf in leaves]
