"""What is ours in how Orbax commits a save: a manifest before it, and barriers that end.

While a save goes on in the background Orbax waits at a barrier when the arrays are written, and at
another when process 0 has committed them. A process that fails comes to neither, and goes on to the
one that ends every save: the others would wait twenty minutes for it. So processes meet at numbered
places, where each tells which of Orbax's barriers it stands at, and find out who has left one out.
"""

from __future__ import annotations

import asyncio
import itertools
import re

import jax
import orbax.checkpoint as ocp
from jax._src import distributed  # Orbax's barriers are of the same client, which is nowhere public

from gpt2_jax.checkpoint.manifest import write_manifest
from gpt2_jax.files.storage import storage_path

STEP = re.compile(r"0|[1-9][0-9]*")  # as Orbax names the folder of a step
_LEFT_OUT_ON_FAILURE = ("async_write_complete", "async_commit_complete")
_places = itertools.count()  # the same in all processes: their saves go through the same barriers


class Folder(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """What a step, or an item of it, is written into until getting its name commits it."""

    async def finalize(self) -> None:
        """Commits it, a step with its manifest."""
        await _describe(self)
        await super().finalize()


class RemoteFolder(ocp.path.atomicity.CommitFileTemporaryPath):
    """The same in a bucket, where nothing can be renamed: a last file commits it."""

    async def finalize(self) -> None:
        """Commits it, a step with its manifest."""
        await _describe(self)
        await super().finalize()


async def _describe(folder: Folder | RemoteFolder) -> None:
    """A step gets its manifest when all of its items are there."""
    name = folder.get_final().name
    if STEP.fullmatch(name):
        await asyncio.to_thread(write_manifest, storage_path(folder.get()), int(name))


class PeerFailed(Exception):
    """Another process could not do its part of a save, and knows the reason."""


def wait_for_all(*, key: str, timeout_ms: int) -> None:
    """What `orbax.checkpoint.AsyncOptions.barrier_sync_fn` asks for.

    Raises:
      PeerFailed: at a barrier that another process leaves out.
    """
    client, process = distributed.global_state.client, jax.process_index()
    assert client is not None, "one process alone has no barriers"
    for number in _places:
        place = f"gpt2_jax/saves/{number}"
        client.key_value_set(f"{place}/{process}", key)
        client.wait_at_barrier(place, timeout_ms)
        if number > 0:  # all who are here have read what was told at the place before
            client.key_value_delete(f"gpt2_jax/saves/{number - 1}/{process}")
        if all(told == key for _, told in client.key_value_dir_get(f"{place}/")):
            return
        if any(name in key for name in _LEFT_OUT_ON_FAILURE):
            raise PeerFailed("another process could not do its part")
