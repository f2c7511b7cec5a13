"""Runs programs where a model's parameters are: on one device, or over a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from gpt2_jax.parallel.rules import Rules, sharding_context


class Placement:
    """Runs the programs of an engine, and puts arrays that were made of nothing beside the rest."""

    def __init__(self, params: Any, mesh: Mesh | None) -> None:
        """Takes the place.

        Args:
          params: of the model.
          mesh: over which they are sharded, if they are.
        """
        self._mesh, self._sharding = mesh, jax.tree.leaves(params)[0].sharding

    def run(self, program: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Returns what a program gives, under the rules of the mesh."""
        if self._mesh is None:
            return program(*arguments, **options)
        # Rows come and go one by one, so that they are not divided.
        with sharding_context(self._mesh, Rules(batch=None)):
            return program(*arguments, **options)

    def make(self, program: Callable[..., Any], *arguments: Any) -> Any:
        """Returns arrays that a program makes of nothing, bound to the device as later ones are.

        Else JAX would compile each program once for the first arrays, and again for the later.
        """
        empty = self.run(program, *arguments)
        if self._mesh is not None:  # the rules have bound them
            return empty
        return jax.device_put(empty, self._sharding)
