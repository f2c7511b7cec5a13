"""Writes that should not end a run when they fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gpt2_jax.errors import shortened, warn


@contextlib.contextmanager
def warn_if_not_written(name: str) -> Iterator[None]:
    """Turns any failure of the block into a warning that `name` was not written."""
    try:
        yield
    except Exception as error:  # the errors of buckets have no common base
        warn(f"{name} was not written: {shortened(str(error), 200)}")
