"""How a save is committed: with a manifest, and with barriers that notice a failed process.

During a save in the background, Orbax waits at one barrier once the arrays are written, and at
another once process 0 has committed them. A process that fails skips both, and continues to the
barrier at the end of every save; the others would wait twenty minutes for it. Here every barrier is
replaced by a numbered meeting point, at which each process publishes which of Orbax's barriers it
has reached. All then see whether one of them has skipped a barrier.
"""

from __future__ import annotations

import asyncio
import itertools

import jax
import orbax.checkpoint as ocp
from jax._src import distributed  # Orbax's barriers use the same client, which has no public name

from gpt2_jax.checkpoint.folders import is_step
from gpt2_jax.checkpoint.manifest import write_manifest
from gpt2_jax.files.paths import resolve_path

_SKIPPED_ON_FAILURE = ("async_write_complete", "async_commit_complete")
# Equal in all processes, because their saves go through the same barriers.
_meeting_points = itertools.count()


class LocalFolder(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """The temporary folder of a step or of one of its items; renaming it commits it."""

    async def finalize(self) -> None:
        """Writes the manifest of a step, and commits the folder."""
        await _write_manifest_of_step(self)
        await super().finalize()


class RemoteFolder(ocp.path.atomicity.CommitFileTemporaryPath):
    """The same in a bucket, where folders cannot be renamed: writing a last file commits it."""

    async def finalize(self) -> None:
        """Writes the manifest of a step, and commits the folder."""
        await _write_manifest_of_step(self)
        await super().finalize()


async def _write_manifest_of_step(folder: LocalFolder | RemoteFolder) -> None:
    """Writes the manifest if the folder is that of a step, whose items are all complete by then."""
    name = folder.get_final().name
    if is_step(name):
        await asyncio.to_thread(write_manifest, resolve_path(folder.get()), int(name))


class PeerFailed(Exception):
    """Another process could not do its part of a save; that process knows the reason."""


def wait_for_all(*, key: str, timeout_ms: int) -> None:
    """Waits until every process has reached the barrier `key`.

    This is the function that `orbax.checkpoint.AsyncOptions.barrier_sync_fn` expects.

    Raises:
      PeerFailed: at a barrier that another process skips.
    """
    client, process = distributed.global_state.client, jax.process_index()
    assert client is not None, "a single process has no barriers"
    for number in _meeting_points:
        point = f"gpt2_jax/saves/{number}"
        client.key_value_set(f"{point}/{process}", key)
        client.wait_at_barrier(point, timeout_ms)
        if number > 0:  # all processes are here, so they have read the keys of the previous point
            client.key_value_delete(f"gpt2_jax/saves/{number - 1}/{process}")
        keys = [value for _, value in client.key_value_dir_get(f"{point}/")]
        if all(other == key for other in keys):
            return
        if any(name in key for name in _SKIPPED_ON_FAILURE):
            raise PeerFailed("another process could not do its part")
