"""Names parameters, and says which of them the patterns of a config mean.

A name joins the keys of a parameter's path in the tree with dots: `wte`, `ln_f.scale`,
`h.attn.c_attn.kernel`. The layers are stacked, so that no name has their number.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from gpt2_jax.errors import UserError

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
