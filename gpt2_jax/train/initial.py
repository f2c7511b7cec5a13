"""The parameters of another model as the start of a run (`train.init_from`)."""

from __future__ import annotations

from typing import Any

import jax

from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.formats.load import Model, abstract_params, find
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.train.state import init_params

# What makes two models the same function of their parameters.
_ARCHITECTURE = (
    "num_layers",
    "num_heads",
    "d_model",
    "mlp_width",
    "activation",
    "layer_norm_epsilon",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "tie_embeddings",
)
_RESIZABLE = ("context_length", "vocab_size")


def read_initial(config: Config, name: str, tokenizer: Tokenizer, abstract: Any) -> Any:
    """Parameters of the model `name`, on the shardings of the run's abstract parameters.

    With `train.init_resize`, position and vocabulary rows that this config has no place for are
    dropped, and those that the model lacks start as in a fresh run.

    Args:
      tokenizer: of the run's data; it must give the rows of both the same meaning.

    Raises:
      UserError: for another architecture, tokenizer, or (without `train.init_resize`) size.
    """
    found = find(name)
    old, new = found.config.model, config.model
    _check(f"train.init_from={name}", old, new, config.train.init_resize)
    _check_tokenizer(f"train.init_from={name}", found, tokenizer)
    if all(getattr(old, key) == getattr(new, key) for key in (*_RESIZABLE, "padded_vocab_size")):
        return found.read(abstract)
    there = jax.tree.map(
        lambda shape, leaf: jax.ShapeDtypeStruct(shape.shape, leaf.dtype, sharding=leaf.sharding),
        abstract_params(old),
        abstract,
    )
    return _laid_over(found.read(there), init_params(config, abstract), old, new)


def _laid_over(params: Any, fresh: Any, old: ModelConfig, new: ModelConfig) -> Any:
    """`fresh` with the rows that both models have taken from `params`."""
    rows = min(old.vocab_size, new.vocab_size)
    shared = {"wte": rows, "lm_head": rows, "wpe": min(old.context_length, new.context_length)}

    def lay(params: Any, fresh: Any) -> Any:
        return {
            name: fresh[name].at[: shared[name]].set(leaf[: shared[name]])
            if name in shared
            else leaf
            for name, leaf in params.items()
        }

    shardings = jax.tree.map(lambda leaf: leaf.sharding, fresh)
    return jax.jit(lay, out_shardings=shardings, donate_argnums=1)(params, fresh)


def _check(where: str, old: ModelConfig, new: ModelConfig, may_resize: bool) -> None:
    def differing(names: tuple[str, ...]) -> list[str]:
        pairs = ((name, getattr(old, name), getattr(new, name)) for name in names)
        return [f"{name} is {a} there and {b} here" for name, a, b in pairs if a != b]

    if other := differing(_ARCHITECTURE):
        raise UserError(f"{where} is another model than the config's: {', '.join(other)}")
    if (other := differing(_RESIZABLE)) and not may_resize:
        raise UserError(
            f"{where} has another size: {', '.join(other)}; set them alike, or crop and grow its "
            "rows with --config.train.init_resize=true"
        )


def _check_tokenizer(where: str, found: Model, tokenizer: Tokenizer) -> None:
    theirs = found.tokenizer
    if theirs.to_dict() == tokenizer.to_dict():
        return
    count = min(theirs.vocab_size, tokenizer.vocab_size)
    if any(theirs.decode_bytes([i]) != tokenizer.decode_bytes([i]) for i in range(count)):
        raise UserError(
            f"{where} has another tokenizer than the data: its tokens would mean other text; "
            "prepare the data with that tokenizer, or start from another model"
        )
