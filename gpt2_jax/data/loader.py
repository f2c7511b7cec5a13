"""Tokens to batches: a batch is a pure function of (seed, step), however many hosts share it.

There is no iterator state to save: the cursor is the step. A process makes only the rows that its
devices hold, which it asks of the batch's sharding. Process numbers do not tell: with tensor
parallelism over processes, several of them hold the same rows.
"""

from __future__ import annotations

import functools
import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import grain
import jax
import numpy as np

from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.errors import UserError


class Batch(NamedTuple):
    """B sequences of T tokens: NumPy arrays on the host, jax.Arrays once placed."""

    inputs: Any
    """int32 [B, T]: what the model reads."""
    targets: Any
    """int32 [B, T]: what it should predict at each position, inputs moved on by one token."""
    weights: Any
    """float32 [B, T]: how much each target counts in the loss; 0 where there is none."""
    segments: Any = None
    """int32 [B, T]: which document each token is of; None where a row counts as one."""

    @classmethod
    def of_windows(cls, windows: np.ndarray) -> Batch:
        """Windows [B, T + 1] as rows, every target of weight 1."""
        inputs, targets = windows[:, :-1].astype(np.int32), windows[:, 1:].astype(np.int32)
        return cls(inputs, targets, np.ones(inputs.shape, np.float32))


class BatchSource(Protocol):
    """Batches by number, made of rows by number."""

    batch_size: int
    context_length: int

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """The named rows of the global batch `step`, as NumPy arrays [len(row_indices), T]."""
        ...


class TrainLoader:
    """Endless shuffled windows; each epoch covers every window once and cuts at other places.

    An epoch has n = (len(tokens) - T) // T windows. All its windows are moved by one offset in
    [0, T), drawn from (seed, epoch), so that the borders between windows differ every time.
    """

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
          seed: of the order and the offsets, from 0 to 2^32 - 1.
          folder: where the tokens are from, which `origins` repeats.

        Raises:
          UserError: when the tokens do not fill one window.
        """
        self.batch_size = batch_size
        self.context_length = context_length
        self.windows_per_epoch = (len(tokens) - context_length) // context_length
        if self.windows_per_epoch < 1:
            raise UserError(
                f"the train split has {len(tokens)} tokens, but model.context_length="
                f"{context_length} needs at least {2 * context_length}: prepare more text, or "
                "train with a shorter context"
            )
        self._tokens, self._seed, self._folder = tokens, seed, folder
        # Only numbers go through grain; reading rows here keeps a step to one pass over B windows.
        windows = grain.MapDataset.range(self.windows_per_epoch).seed(seed).shuffle()
        self._order = windows.repeat()

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """The named rows of global batch `step`: pure in (seed, step, row)."""
        first = step * self.batch_size
        return Batch.of_windows(self.windows([first + row for row in row_indices]))

    def windows(self, positions: Sequence[int]) -> np.ndarray:
        """The windows drawn as these numbers, uint16 [n, T + 1]: inputs and the last target."""
        windows = np.empty((len(positions), self.context_length + 1), TOKEN_DTYPE)
        self._tokens.fill(zip(map(self.window_start, positions), windows, strict=True))
        return windows

    def origins(self, step: int) -> list[tuple[str, int]]:
        """(folder, first token in its train split) of every row of global batch `step`."""
        first = step * self.batch_size
        return [self.origin(first + row) for row in range(self.batch_size)]

    def origin(self, position: int) -> tuple[str, int]:
        """(folder, first token) of the window drawn as number `position`."""
        return self._folder, self.window_start(position)

    def window_start(self, position: int) -> int:
        """The token at which the window begins that is drawn as number `position`, from 0 on."""
        offset = _offset(self._seed, position // self.windows_per_epoch, self.context_length)
        return cast(int, self._order[position]) * self.context_length + offset


@functools.lru_cache(maxsize=16)
def _offset(seed: int, epoch: int, context_length: int) -> int:
    # Python's hash() differs from run to run, and a generator's stream may from version to version.
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % context_length


class EvalWindows:
    """One fixed pass in order, in which every token but the first is a target exactly once.

    Window i reads tokens iT .. iT+T-1 and predicts iT+1 .. iT+T. What the last window and the last
    batch lack is padded with id 0 and weight 0.
    """

    def __init__(self, tokens: TokenArray, *, batch_size: int, context_length: int) -> None:
        """Fixes the pass.

        Args:
          tokens: the val split.
          batch_size: B, sequences in the global batch.
          context_length: T.

        Raises:
          UserError: for fewer than two tokens.
        """
        if len(tokens) < 2:
            raise UserError(
                f"the val split has {len(tokens)} tokens, scoring needs at least 2: prepare more "
                "text or raise val_fraction"
            )
        self.batch_size = batch_size
        self.context_length = context_length
        self._tokens = tokens

    def __len__(self) -> int:
        """Batches in the pass."""
        return -(-(len(self._tokens) - 1) // (self.context_length * self.batch_size))

    def rows(self, step: int, row_indices: Sequence[int]) -> Batch:
        """The named rows of batch `step`; rows past the end have weight 0 throughout."""
        shape = (len(row_indices), self.context_length)
        batch = Batch(
            np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        )
        starts = [(step * self.batch_size + row) * self.context_length for row in row_indices]
        windows = [
            np.empty(min(self.context_length + 1, max(len(self._tokens) - start, 0)), TOKEN_DTYPE)
            for start in starts
        ]
        self._tokens.fill(pair for pair in zip(starts, windows, strict=True) if len(pair[1]) > 1)
        for i, window in enumerate(windows):
            count = len(window) - 1
            if count > 0:
                batch.inputs[i, :count] = window[:-1]
                batch.targets[i, :count] = window[1:]
                batch.weights[i, :count] = 1
        return batch


def place(
    batch_rows: Callable[[Sequence[int]], Batch],
    sharding: jax.sharding.Sharding,
    global_shape: tuple[int, int],
) -> Batch:
    """Puts one global batch on the devices; each process makes the rows its own devices hold.

    Args:
      batch_rows: the named rows of the global batch, as NumPy arrays [rows, T].
      sharding: of [B, T] arrays.
      global_shape: (B, T).

    Returns:
      A Batch of jax.Arrays [B, T] with that sharding.

    Raises:
      UserError: when the sharding cannot divide B rows evenly.
    """
    rows = rows_to_make(sharding, global_shape)
    local = batch_rows(rows)
    # With every device here the rows are all there, and one call moves the arrays together.
    if sharding.is_fully_addressable:
        return jax.device_put(local, sharding)
    position = {row: i for i, row in enumerate(rows)}

    def array(values: np.ndarray) -> jax.Array:
        def shard(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(global_shape[0])
            # A device's rows follow one another, here as in the global batch.
            return values[position[start] : position[start] + stop - start, index[1]]

        return jax.make_array_from_callback(global_shape, sharding, shard)

    return jax.tree.map(array, local)


@functools.lru_cache(maxsize=64)
def rows_to_make(sharding: jax.sharding.Sharding, global_shape: tuple[int, int]) -> tuple[int, ...]:
    """The rows of a global batch that this process's devices hold, in ascending order.

    Raises:
      UserError: when the sharding cannot divide B rows evenly.
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
    """Batches start_step, start_step + 1, ... on the devices, `prefetch` of them made ahead.

    A thread makes them, so that the device never waits for the host; an error in it is raised here.
    Closing the iterator ends the thread.

    Args:
      source: a TrainLoader or an EvalWindows.
      sharding: of [B, T] arrays.
      start_step: number of the first batch.
      stop_step: number after the last, None to go on for ever.
      prefetch: batches that may wait, at least 1.
    """
    if prefetch < 1:
        raise ValueError(f"prefetch must be at least 1, not {prefetch}")
    shape = (source.batch_size, source.context_length)
    rows_to_make(sharding, shape)  # Refuses a bad division now, not in the thread.
    ready: queue.SimpleQueue[Batch | BaseException | None] = queue.SimpleQueue()
    # A place is taken before a batch is made, so that no more than `prefetch` ever lie on devices.
    room = threading.Semaphore(prefetch)
    closed = threading.Event()

    def produce() -> None:
        step = start_step
        try:
            while stop_step is None or step < stop_step:
                room.acquire()
                if closed.is_set():
                    return
                ready.put(place(functools.partial(source.rows, step), sharding, shape))
                step += 1
            ready.put(None)
        except BaseException as error:  # The consumer raises it, whatever it is.
            ready.put(error)

    thread = threading.Thread(target=produce, name="batches", daemon=True)
    return _consume(ready, room, closed, thread)


def _consume(
    ready: queue.SimpleQueue[Batch | BaseException | None],
    room: threading.Semaphore,
    closed: threading.Event,
    thread: threading.Thread,
) -> Generator[Batch]:
    thread.start()
    try:
        while (item := ready.get()) is not None:
            room.release()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        room.release()  # The thread may be waiting for room; now it finds `closed` set.
        thread.join()
