"""Checks that a stored tree of arrays is the one that the config expects."""

from __future__ import annotations

from typing import Any

import jax

from gpt2_jax.errors import UserError


def check_tree(checkpoint: str, item: str, stored: Any, expected: Any) -> None:
    """Compares two trees before any array is read, because Orbax would cast dtypes silently.

    Args:
      checkpoint: its name in an error message.
      item: the part of the checkpoint, such as `params`.
      stored: a tree of what the checkpoint has, whose leaves have a shape and a dtype.
      expected: the same of what the config expects.

    Raises:
      UserError: naming the first leaf that is missing, unexpected or different.
    """
    stored_leaves, expected_leaves = _by_name(stored), _by_name(expected)
    if stored_leaves.keys() != expected_leaves.keys():
        name = sorted(stored_leaves.keys() ^ expected_leaves.keys())[0]
        problem = "has no" if name in expected_leaves else "has an unexpected"
        raise UserError(
            f"{checkpoint} {problem} {item} leaf {name}: it was saved by another model config"
        )
    for name, leaf in expected_leaves.items():
        found = stored_leaves[name]
        if tuple(found.shape) != tuple(leaf.shape) or found.dtype != leaf.dtype:
            raise UserError(
                f"{checkpoint}: {item} leaf {name} is {found.dtype}{list(found.shape)}, "
                f"but the config expects {leaf.dtype}{list(leaf.shape)}"
            )


def _by_name(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
