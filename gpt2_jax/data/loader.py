"""Turns tokens into batches, each a pure function of (seed, step) for any number of hosts.

There is no iterator state to save, because the step is the only cursor. A process makes only the
rows that its devices hold, which the sharding of the batch says. The number of a process does not
say it: with tensor parallelism across processes, several of them hold the same rows.
"""

from __future__ import annotations

import functools
import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import grain
import jax
import numpy as np

from gpt2_jax.data.batch import Batch, BatchSource, Origin
from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.errors import UserError


class TrainLoader:
    """Draws shuffled windows without end; every epoch covers each window once.

    An epoch has n = (len(tokens) - T) // T windows. All its windows are shifted by the same offset
    in [0, T), drawn from (seed, epoch), so that every epoch cuts the tokens elsewhere.
    """

    weighted = False
    segmented = False

    def __init__(
        self,
        tokens: TokenArray,
        *,
        batch_size: int,
        context_length: int,
        seed: int,
        folder: str = "",
    ) -> None:
        """Fixes the order.

        Args:
          tokens: the train split.
          batch_size: B, sequences in the global batch.
          context_length: T.
          seed: seed of the order and the offsets, from 0 to 2^32 - 1.
          folder: the folder of the tokens, which `origins` repeats.

        Raises:
          UserError: if there are too few tokens for one window.
        """
        self.batch_size = batch_size
        self.context_length = context_length
        self.windows_per_epoch = (len(tokens) - context_length) // context_length
        if self.windows_per_epoch < 1:
            raise UserError(
                f"the train split has {len(tokens)} tokens, but model.context_length="
                f"{context_length} needs at least {2 * context_length}: prepare more text, or "
                "reduce model.context_length"
            )
        self._tokens, self._seed, self._folder = tokens, seed, folder
        # Only numbers pass through grain: rows are read here, all B windows of a step in one pass.
        windows = grain.MapDataset.range(self.windows_per_epoch).seed(seed).shuffle()
        self._order = windows.repeat()

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """Returns the given rows of global batch `step`, a pure function of (seed, step, row)."""
        first = step * self.batch_size
        return Batch(self.windows([first + row for row in row_indices]))

    def windows(self, positions: Sequence[int]) -> np.ndarray:
        """Returns the windows drawn as these numbers, uint16 [n, T + 1], targets included."""
        windows = np.empty((len(positions), self.context_length + 1), TOKEN_DTYPE)
        self._tokens.fill(zip(map(self.window_start, positions), windows, strict=True))
        return windows

    def origins(self, step: int) -> list[Origin]:
        """Returns (folder, first token in its train split) for every row of global batch `step`."""
        first = step * self.batch_size
        return [self.origin(first + row) for row in range(self.batch_size)]

    def origin(self, position: int) -> Origin:
        """Returns (folder, first token) for the window drawn as number `position`."""
        return self._folder, self.window_start(position)

    def window_start(self, position: int) -> int:
        """Returns the first token of the window drawn as number `position`, from 0 on."""
        offset = _offset(self._seed, position // self.windows_per_epoch, self.context_length)
        return cast(int, self._order[position]) * self.context_length + offset


@functools.lru_cache(maxsize=16)
def _offset(seed: int, epoch: int, context_length: int) -> int:
    """Returns by how many tokens the windows of an epoch are shifted."""
    # Python's hash() differs between runs, and a generator's stream may differ between versions.
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % context_length


class EvalWindows:
    """Makes one pass in order, in which every token but the first is a target exactly once.

    Window i reads tokens iT .. iT+T-1 and predicts iT+1 .. iT+T. The last window and the last batch
    are padded with id 0 and weight 0.
    """

    weighted = True
    segmented = False

    def __init__(
        self,
        tokens: TokenArray,
        *,
        batch_size: int,
        context_length: int,
        limit: int | None = None,
    ) -> None:
        """Takes the tokens and the shape of batches.

        Args:
          tokens: the val split.
          batch_size: B, sequences in the global batch.
          context_length: T.
          limit: how many targets to score, from the first; by default all.

        Raises:
          UserError: if there are fewer than two tokens.
        """
        if len(tokens) < 2:
            raise UserError(
                f"the val split has {len(tokens)} tokens, but must have at least 2 to be scored: "
                "prepare more text, or a larger val_fraction"
            )
        self.batch_size = batch_size
        self.context_length = context_length
        self._tokens = tokens
        targets = len(tokens) - 1
        self.num_targets = targets if limit is None else min(limit, targets)

    def __len__(self) -> int:
        """Returns the number of batches in the pass."""
        return -(-self.num_targets // (self.context_length * self.batch_size))

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """Returns the given rows of batch `step`; rows past the end have weight 0 everywhere."""
        rows, T = len(row_indices), self.context_length
        tokens, weights = np.zeros((rows, T + 1), TOKEN_DTYPE), np.zeros((rows, T), np.float32)
        starts = [(step * self.batch_size + row) * T for row in row_indices]
        windows = []
        for i, start in enumerate(starts):
            targets = min(T, self.num_targets - start)
            if targets > 0:
                windows.append((start, tokens[i, : targets + 1]))
                weights[i, :targets] = 1
        self._tokens.fill(windows)
        return Batch(tokens, weights)


def place(
    batch_rows: Callable[[Sequence[int]], Batch],
    sharding: jax.sharding.Sharding,
    global_shape: tuple[int, int],
) -> Batch:
    """Puts one global batch on the devices; each process makes the rows that its devices hold.

    Args:
      batch_rows: returns the given rows of the global batch, as NumPy arrays.
      sharding: the sharding of [B, T] arrays, which divides B and not T.
      global_shape: (B, T). Only B counts: the second axis of each array is as long as its rows,
        which have T + 1 tokens and T weights.

    Returns:
      A Batch of jax.Arrays with that sharding.

    Raises:
      UserError: if the sharding cannot divide B rows evenly.
    """
    rows = rows_to_make(sharding, global_shape)
    local = batch_rows(rows)
    # If this process has all devices, it has made all rows, and one call moves all arrays.
    if sharding.is_fully_addressable:
        return jax.device_put(local, sharding)
    position = {row: i for i, row in enumerate(rows)}

    def array(values: np.ndarray) -> jax.Array:
        def shard(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(global_shape[0])
            # A device's rows are consecutive in the global batch, and therefore here.
            return values[position[start] : position[start] + stop - start, index[1]]

        shape = (global_shape[0], values.shape[1])
        return jax.make_array_from_callback(shape, sharding, shard)

    return jax.tree.map(array, local)


@functools.lru_cache(maxsize=64)
def rows_to_make(sharding: jax.sharding.Sharding, global_shape: tuple[int, int]) -> tuple[int, ...]:
    """Returns the rows of a global batch that this process's devices hold, in ascending order.

    Raises:
      UserError: if the sharding cannot divide B rows evenly.
    """
    try:
        indices = sharding.addressable_devices_indices_map(global_shape).values()
    except ValueError:
        raise UserError(
            f"train.batch_size={global_shape[0]} sequences do not divide evenly over the mesh: "
            "each microbatch must be a multiple of mesh.data * mesh.fsdp"
        ) from None
    rows: set[int] = set()
    for index in filter(None, indices):
        rows.update(range(*index[0].indices(global_shape[0])))
    return tuple(sorted(rows))


def device_batches(
    source: BatchSource,
    sharding: jax.sharding.Sharding,
    start_step: int = 0,
    *,
    stop_step: int | None = None,
    prefetch: int = 2,
) -> Generator[Batch]:
    """Yields batches start_step, start_step + 1, ... on the devices, made ahead by a thread.

    The device therefore does not wait for the host. An error in the thread is raised here, and
    closing the iterator ends the thread.

    Args:
      source: a TrainLoader, an EvalWindows, or another source of batches.
      sharding: the sharding of [B, T] arrays.
      start_step: number of the first batch.
      stop_step: number after that of the last batch; None for no end.
      prefetch: the most batches that are ready and not yet taken, at least 1.
    """
    if prefetch < 1:
        raise ValueError(f"prefetch must be at least 1, not {prefetch}")
    shape = (source.batch_size, source.context_length)
    rows_to_make(sharding, shape)  # raises for a bad division here rather than in the thread
    ready: queue.SimpleQueue[Batch | BaseException | None] = queue.SimpleQueue()
    # Acquired before a batch is made, so that no more than `prefetch` batches wait on the devices.
    slots = threading.Semaphore(prefetch)
    closed = threading.Event()

    def produce() -> None:
        step = start_step
        try:
            while stop_step is None or step < stop_step:
                slots.acquire()
                if closed.is_set():
                    return
                ready.put(place(functools.partial(source.rows, step), sharding, shape))
                step += 1
            ready.put(None)
        except BaseException as error:  # whatever it is, the consumer raises it
            ready.put(error)

    thread = threading.Thread(target=produce, name="batches", daemon=True)
    return _consume(ready, slots, closed, thread)


def _consume(
    ready: queue.SimpleQueue[Batch | BaseException | None],
    slots: threading.Semaphore,
    closed: threading.Event,
    thread: threading.Thread,
) -> Generator[Batch]:
    """Starts the thread, yields what it makes, and ends it."""
    thread.start()
    try:
        while (item := ready.get()) is not None:
            slots.release()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        slots.release()  # the thread may be waiting for a slot, and now finds `closed` set
        thread.join()
