"""A model as other programs' files hold it: a config in their words, and named matrices.

Hugging Face's and OpenAI's files have one tensor per layer where training has a stacked leaf, and
flat kernels, [in, out], where ours keep heads apart. Both are reshapes: no value changes.
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

# Leaf of the parameter tree and layer, None outside the blocks -> the name in a file.
Naming = Callable[[tuple[str, ...], int | None], str]


class TensorSource(Protocol):
    """Tensors by name, each read when it is asked for."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor, in a dtype that float32 holds exactly."""
        ...


def imported_config(model: Mapping[str, Any], where: Path) -> Config:
    """The config of a model that was not trained here: float32; what is not `model` is default.

    Raises:
      UserError: for values that no model can have; `where` is the file they come from.
    """
    values = {**model, "dtype": "float32"}
    context = values["context_length"]
    if isinstance(context, int) and context % ModelConfig().loss_chunk:
        values["loss_chunk"] = 0  # the loss takes whole chunks; any length is one
    try:
        return config_lib.from_dict({"model": values})
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


class _Leaf(NamedTuple):
    path: tuple[str, ...]
    shape: tuple[int, ...]  # of one tensor in a file
    layers: tuple[int | None, ...]


def read_params(
    source: TensorSource, naming: Naming, config: ModelConfig, abstract: Any, where: str
) -> Any:
    """Assembles scanned parameters, leaf by leaf; the padded rows of tables are zero.

    Args:
      abstract: ShapeDtypeStructs with the shardings to put the leaves on.
      where: what the errors call the source.

    Raises:
      UserError: for a tensor that is missing, superfluous or of another shape.
    """
    if config.num_layers > len(source.shapes):  # known before there is a name for each of them
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
            rows = source.read(names[0])
            whole[: rows.shape[0]] = rows.reshape(-1, *target.shape[1:])
        else:
            for i, name in enumerate(names):
                whole[i] = source.read(name).reshape(target.shape[1:])
        # Every process cuts out what its devices hold.
        return jax.make_array_from_callback(
            target.shape, target.sharding, lambda index: whole[index]
        )

    targets = [target for _, target in _with_paths(abstract)]
    arrays = [assemble(leaf, target) for leaf, target in zip(leaves, targets, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(abstract), arrays)


def named_tensors(
    params: Any, naming: Naming, config: ModelConfig
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) of everything, padding stripped: the inverse of `read_params`.

    On the CPU the tensors are views of the parameters and take no memory of their own.
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
    else:
        shape = (math.prod(shape),)
    return _Leaf(path, shape, tuple(range(config.num_layers)))


def _check(source: TensorSource, expected: dict[str, tuple[int, ...]], where: str) -> None:
    if missing := [name for name in expected if name not in source.shapes]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{where} lacks the tensor {missing[0]}{more}")
    if extra := [name for name in source.shapes if name not in expected]:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise UserError(f"{where} has a tensor that GPT-2 has no place for: {extra[0]}{more}")
    for name, shape in expected.items():
        if tuple(source.shapes[name]) != shape:
            raise UserError(
                f"{where}: {name} has the shape {list(source.shapes[name])}, its config asks for "
                f"{list(shape)}"
            )


def _with_paths(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(tuple(entry.key for entry in path), leaf) for path, leaf in leaves]
