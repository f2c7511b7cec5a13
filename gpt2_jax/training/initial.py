"""Initializes a run from the parameters of another model (`train.init_from`)."""

from __future__ import annotations

from typing import Any

import jax

from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.formats.base import merged, read_base, refuse_adapters
from gpt2_jax.formats.load import open_model
from gpt2_jax.formats.run_model import RESIZABLE
from gpt2_jax.model.build import abstract_params
from gpt2_jax.model.lora import without_adapters
from gpt2_jax.model.positions import ENCODINGS
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.training.state import init_params


def read_initial(config: Config, name: str, tokenizer: Tokenizer, abstract: Any) -> Any:
    """Reads the parameters of the model `name` onto the shardings of the run's abstract parameters.

    With `train.init_resize`, rows of positions and of the vocabulary that the config does not have
    are dropped, and rows that the model does not have are initialized as in a new run. A run that
    trains adapters (`model.lora_rank`) reads their base, which must have all rows; any other run
    reads a model with adapters merged.

    Args:
      config: the run's config.
      name: the model, as `train.init_from` names it.
      tokenizer: the tokenizer of the run's data, whose ids must mean the same as the model's.
      abstract: shapes and shardings of the run's parameters, without adapters.

    Raises:
      UserError: for another architecture, tokenizer, or (without `train.init_resize`) size.
    """
    where, adapts = f"train.init_from={name}", config.model.lora_rank > 0
    with open_model(name) as reader:
        if adapts:
            refuse_adapters(where, reader.config.model)
        reader = merged(reader)
        old, new = reader.config.model, without_adapters(config.model)
        _check(where, old, new, config.train.init_resize)
        _check_tokenizer(where, reader.tokenizer, tokenizer)
        if adapts:
            _check_not_grown(where, old, new)
            return read_base(reader, new, abstract)
        if old.context_length == new.context_length and _vocab_rows(old) == _vocab_rows(new):
            return reader.read_params(abstract).params
        stored = jax.tree.map(
            lambda shape, leaf: jax.ShapeDtypeStruct(
                shape.shape, leaf.dtype, sharding=leaf.sharding
            ),
            abstract_params(old),
            abstract,
        )
        read = reader.read_params(stored).params
        return _copy_rows(read, init_params(config, abstract), old, new)


def _vocab_rows(model: ModelConfig) -> tuple[int, int]:
    return model.vocab_size, model.padded_vocab_size


def _copy_rows(params: Any, fresh: Any, old: ModelConfig, new: ModelConfig) -> Any:
    """Returns `fresh` with the rows that both models have copied from `params`."""
    rows = min(old.vocab_size, new.vocab_size)
    shared = {"wte": (0, rows), "lm_head": (0, rows)}  # leaf -> (axis of rows, rows to copy)
    if table := ENCODINGS[new.position].table:
        shared[table.name] = table.axis, min(old.context_length, new.context_length)

    def copy(path: tuple[Any, ...], leaf: jax.Array, fresh: jax.Array) -> jax.Array:
        if path[-1].key not in shared:
            return leaf
        axis, rows = shared[path[-1].key]
        copied = jax.lax.slice_in_dim(leaf, 0, rows, axis=axis)
        return jax.lax.dynamic_update_slice_in_dim(fresh, copied, 0, axis)

    def copy_all(params: Any, fresh: Any) -> Any:
        return jax.tree_util.tree_map_with_path(copy, params, fresh)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, fresh)
    return jax.jit(copy_all, out_shardings=shardings, donate_argnums=1)(params, fresh)


def _check(where: str, old: ModelConfig, new: ModelConfig, may_resize: bool) -> None:
    differences = {
        name: f"{name} is {of_model} there and {of_config} in the config"
        for name, (of_model, of_config) in old.differences(new).items()
    }
    if fixed := [text for name, text in differences.items() if name not in RESIZABLE]:
        raise UserError(f"{where} is a different model than the config's: {', '.join(fixed)}")
    if differences and not may_resize:
        raise UserError(
            f"{where} has another size: {', '.join(differences.values())}; set the same size, or "
            "crop and grow the rows with --config.train.init_resize=true"
        )


def _check_not_grown(where: str, old: ModelConfig, new: ModelConfig) -> None:
    for name in RESIZABLE:
        if getattr(new, name) > getattr(old, name):
            raise UserError(
                f"model.{name}={getattr(new, name)} needs rows that {where} does not have, and "
                f"adapters (LoRA) would never train them: set at most {getattr(old, name)}, or "
                "model.lora_rank=0"
            )


def _check_tokenizer(where: str, theirs: Tokenizer, ours: Tokenizer) -> None:
    if isinstance(theirs, IdsTokenizer):
        raise UserError(f"{where} has no tokenizer that can be read: {theirs.reason}")
    if theirs.to_dict() == ours.to_dict():
        return
    count = min(theirs.vocab_size, ours.vocab_size)
    if any(theirs.decode_bytes([i]) != ours.decode_bytes([i]) for i in range(count)):
        raise UserError(
            f"{where} has another tokenizer than the data, so its token ids mean other text; "
            "prepare the data with that model as --tokenizer, or start from another model"
        )
