"""Where the numbers of a run go: metrics.jsonl, TensorBoard, Weights & Biases.

To add a tracker, write a class with the methods of `Tracker` and its line in `open_trackers`, and
a knob in the config's `log` section that turns it on.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config
from gpt2_jax.errors import UserError, shortened, warn
from gpt2_jax.files.append import AppendFile
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.best_effort import warn_if_not_written
from gpt2_jax.files.extras import import_extra
from gpt2_jax.files.paths import is_remote
from gpt2_jax.training.metrics_file import open_lines

Value = float | int


class Tracker(Protocol):
    """Records what a run reports. Nothing that its methods raise ends the run; see `Trackers`."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Records numbers by name; there may be several calls for a step, with different names."""
        ...

    def text(self, step: int, name: str, text: str) -> None:
        """Records a text, such as a sample."""
        ...

    def histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Records the distribution of each array's values."""
        ...

    def flush(self) -> None:
        """Hands on everything recorded so far."""
        ...

    def close(self) -> None:
        """Flushes and closes; nothing is recorded afterwards."""
        ...


class Trackers:
    """Passes everything on to several trackers, and warns if one of them fails.

    Only process 0 has trackers, so that in the others nothing happens.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        """Takes the trackers."""
        self._trackers = trackers
        self._failed: set[int] = set()  # by index

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Records numbers, which may be scalars of NumPy or JAX; see `Tracker`."""
        numbers = {name: _as_python(value) for name, value in values.items()}
        self._call_each(lambda tracker: tracker.log(step, numbers))

    def text(self, step: int, name: str, text: str) -> None:
        """Records a text; see `Tracker`."""
        self._call_each(lambda tracker: tracker.text(step, name, text))

    def histograms(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Records the finite values of each array; see `Tracker`."""
        flat = {name: np.asarray(array, np.float64).ravel() for name, array in arrays.items()}
        finite = {name: values[np.isfinite(values)] for name, values in flat.items()}
        finite = {name: values for name, values in finite.items() if values.size}
        self._call_each(lambda tracker: tracker.histograms(step, finite))

    def flush(self) -> None:
        """Flushes each."""
        self._call_each(lambda tracker: tracker.flush())

    def close(self) -> None:
        """Closes each."""
        self._call_each(lambda tracker: tracker.close())

    def _call_each(self, call: Callable[[Tracker], None]) -> None:
        """Calls each tracker, and warns of the first failure of each."""
        for i, tracker in enumerate(self._trackers):
            try:
                call(tracker)
            except Exception as error:  # of any library: no run should end because of its records
                if i not in self._failed:
                    name, reason = type(tracker).__name__, shortened(repr(error), 200)
                    warn(f"{name} has failed ({reason}); its records are no longer complete")
                self._failed.add(i)


def open_trackers(config: Config, workdir: Path, start_step: int) -> Trackers:
    """Opens the trackers that the config turns on.

    Args:
      config: its `log` section chooses.
      workdir: the run's folder.
      start_step: step of the checkpoint that the run resumes from, 0 for a fresh run. Records of
        later steps are dropped or hidden, because those steps are computed again.

    Raises:
      OSError: if a file cannot be opened. Lines that a full disk refuses later wait in memory.
      UserError: for a tracker whose extra is not installed, or whose service refuses.
    """
    with contextlib.ExitStack() as opened:  # closes those that are open if another one fails
        trackers: list[Tracker] = []

        def add(tracker: Tracker) -> None:
            trackers.append(tracker)
            opened.callback(tracker.close)

        add(JsonLines(workdir, start_step))
        if config.log.tensorboard:
            add(TensorBoard(workdir, start_step))
        if config.log.wandb:
            add(WeightsAndBiases(config, workdir))
        opened.pop_all()
    return Trackers(trackers)


class JsonLines:
    """Writes `metrics.jsonl`: one JSON object per line, with `step` and the numbers.

    Numbers that are not finite become null, because JSON cannot express them.
    """

    def __init__(self, workdir: Path, start_step: int) -> None:
        """Drops the lines of steps after `start_step`, and a line that a kill left unfinished."""
        self._file = open_lines(workdir / "metrics.jsonl", start_step)

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Appends a line."""
        finite = {k: value if math.isfinite(value) else None for k, value in values.items()}
        line = json.dumps({"step": step, **finite}, allow_nan=False)
        self._file.write(line.encode() + b"\n")

    def text(self, step: int, name: str, text: str) -> None:
        """Does nothing: texts are in samples/."""

    def histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Does nothing: arrays would make the file too large."""

    def flush(self) -> None:
        """Hands everything written so far to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()


class TensorBoard:
    """Writes TensorBoard events under `tensorboard/`, with tensorboardX.

    flax.metrics.tensorboard and clu would need TensorFlow.
    """

    def __init__(self, workdir: Path, start_step: int) -> None:
        """Opens an event file that hides the events after `start_step` in earlier ones."""
        from tensorboardX import SummaryWriter  # only here: protobuf is slow to import

        # The suffix keeps two starts within one second from sharing a file name.
        self._events = SummaryWriter(
            _events_folder(workdir / "tensorboard"),
            purge_step=start_step + 1,
            flush_secs=30,
            filename_suffix=f".{start_step}.{os.getpid()}",
        )

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Adds a scalar for each number."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def text(self, step: int, name: str, text: str) -> None:
        """Adds a text, shown as it is rather than as Markdown."""
        block = "\n".join(f"    {line}" for line in text.splitlines())
        self._events.add_text(name, block, step)

    def histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds a histogram of each array."""
        for name, values in arrays.items():
            self._events.add_histogram(name, values, step)

    def flush(self) -> None:
        """Writes the events that are in memory."""
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._events.close()


class WeightsAndBiases:
    """Logs to the Weights & Biases project that `log.wandb` names.

    A resumed run continues its run there, by the id that the workdir keeps in `wandb_id`.
    """

    def __init__(self, config: Config, workdir: Path) -> None:
        """Starts or continues the run.

        Raises:
          UserError: if the extra is not installed, or the service refuses.
        """
        wandb = import_extra("wandb", extra="wandb", needed_by="log.wandb")
        path = workdir / "wandb_id"
        run_id = path.read_text().strip() if path.exists() else None
        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=config.log.wandb,
                id=run_id,
                resume="allow",
                name=workdir.name or None,
                dir=None if is_remote(workdir) else str(workdir),
                config=config_lib.to_dict(config),
            )
            # Resuming computes some steps again, whereas the service's own step may only grow.
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # of the network, the account or the library
            raise UserError(
                f"log.wandb={config.log.wandb}: Weights & Biases cannot start "
                f"({shortened(str(error), 200)}); log in with `wandb login`, set "
                "WANDB_MODE=offline, or unset log.wandb"
            ) from error
        if run_id is None:
            with warn_if_not_written("wandb_id"):
                write_file(path, f"{self._run.id}\n".encode())

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Logs the numbers."""
        self._run.log({"step": step, **values})

    def text(self, step: int, name: str, text: str) -> None:
        """Logs a text as preformatted HTML."""
        escaped = text.replace("&", "&amp;").replace("<", "&lt;")
        self._run.log({"step": step, name: self._wandb.Html(f"<pre>{escaped}</pre>")})

    def histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Logs a histogram of each array."""
        logged = {name: self._wandb.Histogram(values) for name, values in arrays.items()}
        self._run.log({"step": step, **logged})

    def flush(self) -> None:
        """Does nothing: the library sends in the background."""

    def close(self) -> None:
        """Waits until everything has been sent."""
        self._run.finish()


_APPENDED = "appended"


def _events_folder(folder: Path) -> str:
    """Returns the name by which tensorboardX writes to the folder with `AppendFile`.

    With its own files, its writing thread would end when the disk is full.
    """
    if is_remote(folder):
        return str(folder)
    from tensorboardX.record_writer import register_writer_factory

    register_writer_factory(_APPENDED, _AppendFiles())
    return f"{_APPENDED}:{folder}"


class _AppendFiles:
    """Opens files for tensorboardX under names that begin with `_APPENDED`."""

    def open(self, path: str) -> AppendFile:
        return AppendFile(path.removeprefix(f"{_APPENDED}:"))

    def directory_check(self, path: str) -> None:
        os.makedirs(path.removeprefix(f"{_APPENDED}:"), exist_ok=True)


def _as_python(value: Any) -> Value:
    """Returns a Python number for a scalar of NumPy or JAX."""
    return value.item() if hasattr(value, "item") else value
