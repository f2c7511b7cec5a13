"""Trees of arrays: whether what was saved is what is asked for."""

from __future__ import annotations

from typing import Any

import jax

from gpt2_jax.errors import UserError


def check_tree(where: str, item: str, stored: Any, asked: Any) -> None:
    """Compares before anything is read: Orbax would cast to the dtype asked for without a word.

    Args:
      where: the checkpoint, as an error names it.
      item: its part, such as `params`.
      stored, asked: trees whose leaves have a shape and a dtype.

    Raises:
      UserError: naming the first leaf that one of them lacks, or that differs.
    """
    saved, wanted = _by_name(stored), _by_name(asked)
    if saved.keys() != wanted.keys():
        differing = sorted(saved.keys() ^ wanted.keys())[0]
        side = "lacks" if differing in wanted else "has an unexpected"
        raise UserError(
            f"{where} {side} {item} leaf {differing}: it was saved by another model config"
        )
    for name, leaf in wanted.items():
        found = saved[name]
        if tuple(found.shape) != tuple(leaf.shape) or found.dtype != leaf.dtype:
            raise UserError(
                f"{where}: {item} leaf {name} is {found.dtype}{list(found.shape)}, "
                f"the config asks for {leaf.dtype}{list(leaf.shape)}"
            )


def _by_name(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
