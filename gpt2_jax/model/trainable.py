"""Names parameters, says which of them a pattern means, and which of them a run trains.

A name joins the keys of a parameter's path in the tree with dots: `wte`, `ln_f.scale`,
`h.attn.c_attn.kernel`. The layers are stacked, so that no name has their number.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jax

from gpt2_jax.config import Config
from gpt2_jax.config.lora import parse_freeze
from gpt2_jax.errors import UserError
from gpt2_jax.model.build import boxed_shapes
from gpt2_jax.model.flops import num_params
from gpt2_jax.model.lora import LORA_A, LORA_B

_LAYERS = "h."


def matches(pattern: str, name: str) -> bool:
    """Returns whether a pattern means a parameter: by its name, or by a group that contains it.

    In a pattern, `*` stands for any characters, and `h.*.mlp` means the same as `h.mlp`, because a
    name has no number of a layer.

    Args:
      pattern: such as `wte`, `h.*.mlp`, `*.bias`, or `*` for everything.
      name: of a parameter, such as `h.mlp.c_fc.kernel`.
    """
    without_number = pattern.replace(f"{_LAYERS}*.", _LAYERS, 1)
    spellings = {pattern, without_number if pattern.startswith(_LAYERS) else pattern}
    return any(
        fnmatch.fnmatchcase(name, spelled) or fnmatch.fnmatchcase(name, f"{spelled}.*")
        for spelled in spellings
    )


def name_of(path: Sequence[Any]) -> str:
    """Returns the name of a parameter, of whose path in the tree JAX has given the entries."""
    return ".".join(str(entry.key) for entry in path if hasattr(entry, "key"))


def names(params: Any) -> list[str]:
    """Returns the name of every parameter of a tree, whose leaves may be boxed or abstract."""
    is_leaf = lambda leaf: hasattr(leaf, "unbox")  # noqa: E731
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_leaf)
    return [name_of(path) for path, _ in leaves]


def groups(of_names: Iterable[str]) -> list[str]:
    """Returns what a pattern can name, sorted: every group of parameters down to single layers."""
    found = set[str]()
    for name in of_names:
        keys = name.split(".")
        last = len(keys) - 1 if len(keys) > 1 else 1  # without kernel, bias and scale
        found |= {".".join(keys[:count]) for count in range(1, last + 1)}
    return sorted(found)


def check_patterns(knob: str, patterns: Iterable[str], of_names: Sequence[str]) -> None:
    """Checks that every pattern of a knob matches a parameter.

    Raises:
      UserError: for the first that matches none; it lists the groups that there are.
    """
    for pattern in patterns:
        if not any(matches(pattern, name) for name in of_names):
            known = ", ".join(groups(of_names))
            raise UserError(
                f"{knob}: {pattern!r} matches no parameter of this model: name one of {known}, or "
                "* for everything"
            )


def trained_names(config: Config, params: Any) -> frozenset[str] | None:
    """Returns the names of the parameters that a run trains; None if it trains all of them.

    Args:
      config: of the run; its `optimizer.freeze` names parameters that are not trained, and with
        `model.lora_rank` only the adapters are.
      params: all of its parameters; leaves may be boxed or abstract.

    Raises:
      UserError: for a pattern that matches nothing, or if no parameter is left to train.
    """
    if config.model.lora_rank:
        return frozenset(name for name in names(params) if _is_adapter(name))
    if not (frozen := parse_freeze(config.optimizer.freeze)):
        return None
    known = names(params)
    check_patterns("optimizer.freeze", frozen, known)
    trained = [name for name in known if not any(matches(pattern, name) for pattern in frozen)]
    if not trained:
        raise UserError(
            f"optimizer.freeze={config.optimizer.freeze} freezes every parameter, so that nothing "
            "is left to train: name fewer"
        )
    return frozenset(trained)


def num_trained_params(config: Config) -> int:
    """Returns the number of parameters that a run trains, without padding.

    Raises:
      UserError: see `trained_names`.
    """
    if not config.model.lora_rank and not parse_freeze(config.optimizer.freeze):
        return num_params(config.model)  # without tracing anything
    shapes = boxed_shapes(config.model)
    trained = trained_names(config, shapes) or ()
    leaves = zip(names(shapes), jax.tree.leaves(shapes), strict=True)
    sizes = {name: math.prod(leaf.shape) for name, leaf in leaves if name in trained}
    padding = (config.model.padded_vocab_size - config.model.vocab_size) * config.model.d_model
    return sum(sizes.values()) - padding * len(sizes.keys() & {"wte", "lm_head"})


def trained_params(config: Config, params: Any) -> Any:
    """Returns the tree of the parameters that a run trains: `params` itself if it trains all."""
    return split(params, trained_names(config, params))[0]


def split(params: Any, trained: Collection[str] | None) -> tuple[Any, Any]:
    """Returns (trained, frozen) parameters as two trees, without groups that would be empty.

    Args:
      params: nested mappings.
      trained: what `trained_names` returns; for None, `params` itself is trained.
    """
    if trained is None:
        return params, {}
    return _selected(params, trained, wanted=True), _selected(params, trained, wanted=False)


def joined(trained: Any, frozen: Any) -> Any:
    """Returns the parameters that `split` has divided."""
    if not isinstance(trained, Mapping) or not frozen:
        return trained
    return {
        name: joined(trained[name], frozen.get(name, {})) if name in trained else frozen[name]
        for name in sorted(trained.keys() | frozen.keys())
    }


def _selected(node: Any, of: Collection[str], *, wanted: bool, prefix: str = "") -> dict[str, Any]:
    selected: dict[str, Any] = {}
    for key, child in node.items():
        name = f"{prefix}{key}"
        if isinstance(child, Mapping):
            if inner := _selected(child, of, wanted=wanted, prefix=f"{name}."):
                selected[key] = inner
        elif (name in of) == wanted:
            selected[key] = child
    return selected


def _is_adapter(name: str) -> bool:
    return name.rpartition(".")[2] in (LORA_A, LORA_B)
