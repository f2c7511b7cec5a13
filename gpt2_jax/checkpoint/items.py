"""Names the parts of a checkpoint, each in a folder of its own, and says how Orbax handles them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

PARAMS, REST, META = "params", "rest", "meta"
AVERAGE = "ema"
"""The average of the parameters: apart from the rest of the state, to be read alone."""


def handlers(names: Collection[str], in_flight_gb: int) -> dict[str, Any]:
    """Returns Orbax's handler for each item.

    Args:
      names: of the items.
      in_flight_gb: gigabytes of arrays in memory at a time while reading or writing.
    """
    return {
        name: ocp.JsonCheckpointHandler()
        if name == META
        else ocp.StandardCheckpointHandler(
            save_concurrent_gb=in_flight_gb, restore_concurrent_gb=in_flight_gb
        )
        for name in names
    }


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Silences warnings of Orbax about what is intended, such as to read only some items."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# Of an array that several devices hold, each writes a part. One below this size, in bytes, is
# written whole, because each part of another shape is a program to compile and a dispatch.
_MIN_PART = 2**20
with without_warnings():  # about the handler that this replaces
    ocp.type_handlers.register_type_handler(
        jax.Array,
        ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_MIN_PART),
        override=True,
    )
