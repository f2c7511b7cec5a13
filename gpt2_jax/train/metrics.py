"""What a run writes down: rows of metrics.jsonl, TensorBoard events, and its throughput."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.files.storage import PatientFile, is_remote
from gpt2_jax.train.metrics_file import open_rows

Value = float | int | str
_PATIENT = "patient"


class MetricsWriter:
    """Writes rows of metrics to `metrics.jsonl` and TensorBoard events in a workdir.

    A run that starts again from `start_step` will write the rows after it anew, so those that an
    earlier process left, and a line it did not finish, are dropped first; TensorBoard is told to
    hide its events after that step. Before it is opened, and in a process that never opens it, all
    methods do nothing.
    """

    def __init__(self, workdir: Path) -> None:
        """Takes the run's folder."""
        self._workdir = workdir
        self._jsonl = None
        self._events = None

    def open(self, start_step: int, *, tensorboard: bool) -> None:
        """Opens the files.

        Args:
          start_step: step of the checkpoint the run goes on from, 0 for a fresh run.
          tensorboard: also write events under `workdir/tensorboard`.

        Raises:
          OSError: if the files cannot be opened. What they do not take later waits in memory.
        """
        self._jsonl = open_rows(self._workdir / "metrics.jsonl", start_step)
        if tensorboard:
            # flax.metrics.tensorboard and clu would need TensorFlow. Imported only where it is
            # used: protobuf is slow to load.
            from tensorboardX import SummaryWriter

            # The suffix keeps two starts within one second from sharing a file name.
            self._events = SummaryWriter(
                _events_folder(self._workdir / "tensorboard"),
                purge_step=start_step + 1,
                flush_secs=30,
                filename_suffix=f".{start_step}.{os.getpid()}",
            )

    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Appends the row `{"step": step, **values}` and the numbers among it as scalars.

        Numbers that are not finite are null in the file, which stays valid JSON, and NaN or
        infinite in TensorBoard.
        """
        if self._jsonl is None:
            return
        row = {"step": int(step)} | {name: _plain(value) for name, value in values.items()}
        finite = {name: value if _is_finite(value) else None for name, value in row.items()}
        self._jsonl.write(json.dumps(finite, allow_nan=False).encode() + b"\n")
        if self._events is not None:
            for name, value in row.items():
                if name != "step" and not isinstance(value, str):
                    self._events.add_scalar(name, value, int(step))

    def text(self, step: int, tag: str, text: str) -> None:
        """Adds a text, such as a sample, to TensorBoard, as it is rather than as Markdown."""
        if self._events is not None:
            block = "\n".join(f"    {line}" for line in text.splitlines())
            self._events.add_text(tag, block, int(step))

    def histograms(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Adds a histogram of each array's finite values to TensorBoard."""
        if self._events is None:
            return
        for name, array in arrays.items():
            values = np.asarray(array, dtype=np.float64).ravel()
            values = values[np.isfinite(values)]  # one NaN would make tensorboardX raise
            if values.size:
                self._events.add_histogram(name, values, int(step))

    def flush(self) -> None:
        """Hands everything written so far to the operating system."""
        if self._jsonl is not None:
            self._jsonl.flush()
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files; the writer is of no use afterwards."""
        if self._jsonl is not None:
            self._jsonl.close()
            self._jsonl = None
        if self._events is not None:
            self._events.close()
            self._events = None


def _events_folder(folder: Path) -> str:
    """The folder's name for tensorboardX, whose own files' thread would end on a full disk."""
    if is_remote(folder):
        return str(folder)
    from tensorboardX.record_writer import register_writer_factory

    register_writer_factory(_PATIENT, _PatientFiles())
    return f"{_PATIENT}:{folder}"


class _PatientFiles:
    """How tensorboardX opens files under a name that begins with `_PATIENT`."""

    def open(self, path: str) -> PatientFile:
        return PatientFile(path.removeprefix(f"{_PATIENT}:"))

    def directory_check(self, path: str) -> None:
        os.makedirs(path.removeprefix(f"{_PATIENT}:"), exist_ok=True)


class Throughput:
    """Tokens per second and model FLOPs utilization since the last time it was asked."""

    def __init__(
        self,
        tokens_per_step: int,
        flops_per_token: float,
        peak_flops: float | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Sets the rates.

        Args:
          tokens_per_step: tokens of one optimizer step over all devices.
          flops_per_token: of forward and backward pass; state the formula with the number.
          peak_flops: FLOP/s of all devices together, None if unknown: then there is no `mfu`.
          clock: seconds that only grow.
        """
        self._tokens_per_step = tokens_per_step
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._clock = clock
        self._step: int | None = None
        self._since = 0.0
        self._paused = 0.0

    def start(self, step: int) -> None:
        """Begins an interval after `step` steps, best after the first, which compiles."""
        self._step, self._since, self._paused = step, self._clock(), 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time spent inside out of the interval: validation, checkpoints, samples."""
        began = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - began

    def measure(self, step: int) -> dict[str, float]:
        """`tokens_per_second` and, where the peak is known, `mfu` (0 to 1) of the interval.

        Begins the next interval. Empty if none was begun yet or no step was made.
        """
        rates: dict[str, float] = {}
        if self._step is not None:
            seconds = self._clock() - self._since - self._paused
            tokens = (step - self._step) * self._tokens_per_step
            if seconds > 0 and tokens > 0:
                rates["tokens_per_second"] = tokens / seconds
                if self._peak_flops:
                    rates["mfu"] = tokens / seconds * self._flops_per_token / self._peak_flops
        self.start(step)
        return rates


def _plain(value: Any) -> Value:
    """A Python number for a scalar of numpy or JAX."""
    return value.item() if hasattr(value, "item") else value


def _is_finite(value: Value) -> bool:
    return isinstance(value, str) or math.isfinite(value)
