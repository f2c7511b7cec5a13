"""Steps whose update was skipped: the warning, and the file that helps to find the cause."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from gpt2_jax.errors import NumbersWentBad, shortened
from gpt2_jax.files.atomic import write_file
from gpt2_jax.parallel.distributed import is_primary
from gpt2_jax.training.gradient_norms import norms_by_name
from gpt2_jax.training.run import Run
from gpt2_jax.training.step import Metrics

# Number of files to keep, those of the newest steps. Bad steps in a row share their parameters, so
# that a few say as much as all of them, and a run that often goes bad does not fill the disk.
KEPT = 20


class BadSteps:
    """Looks for skipped updates in every step's metrics and records them in `bad_steps/`.

    The file `<step>.json` has the `reason`; the step's `loss`, `grad_norm`, `learning_rate` and
    `grad_norms` by parameter and layer, with "nan", "inf" and "-inf" for numbers that are not
    finite; the number of its `batch`; and for each of the batch's `rows`, the folder that it was
    read from and the first of its `row_tokens` tokens in that folder's train split.
    """

    def __init__(self, run: Run, warn: Callable[[str], None]) -> None:
        """Takes the run, and a function that shows the user a line."""
        self._run, self._warn, self._folder = run, warn, run.workdir / "bad_steps"

    def check(self, step: int, metrics: Metrics) -> None:
        """Reports a step if its update was skipped; every process must call this after every step.

        Raises:
          NumbersWentBad: after `train.max_bad_steps` steps in a row that were not finite.
        """
        reason, in_a_row = _why_skipped(metrics), int(metrics["bad_steps"])
        if reason is None:
            return
        where = self._write(step, reason, metrics)
        if in_a_row < self._run.config.train.max_bad_steps:
            self._warn(f"step {step}: {reason}, update skipped: {where}")
            return
        raise NumbersWentBad(
            f"the loss or gradient was not finite in {in_a_row} steps in a row, up to step {step}; "
            "the parameters are as they were before. Look at the data, or lower "
            f"schedule.learning_rate in another --workdir: {where}"
        )

    def _write(self, step: int, reason: str, metrics: Metrics) -> str:
        """Writes the step's file in process 0; returns where it is, or why it is missing."""
        path = self._folder / f"{step}.json"
        if is_primary():
            try:
                self._folder.mkdir(exist_ok=True)
                record = self._record(step, reason, jax.device_get(metrics))
                write_file(path, record.encode())
                self._drop_all_but_newest(path)
            except Exception as error:  # no failure of a disk or a bucket should end the run here
                return f"cannot write {path}: {shortened(str(error), 200)}"
        return f"see {path}"

    def _record(self, step: int, reason: str, metrics: Metrics) -> str:
        batch = step - 1  # the first step takes batch 0
        values = {
            "step": step,
            "reason": reason,
            **{name: _json(metrics[name]) for name in ("loss", "grad_norm", "learning_rate")},
            "grad_norms": {n: _json(x) for n, x in norms_by_name(metrics["grad_norms"]).items()},
            "batch": batch,
            "row_tokens": self._run.config.model.context_length + 1,
            "rows": self._run.setup.origins(batch),
        }
        # One line for each value, whereas the indent of `json` would take four for every row.
        lines = (f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in values.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def _drop_all_but_newest(self, written: Path) -> None:
        # A run that was set back has files of later steps; the one just written stays in any case.
        steps = {int(p.stem) for p in self._folder.glob("*.json") if p.stem.isdigit()}
        for step in sorted(steps - {int(written.stem)})[: -(KEPT - 1)]:
            (self._folder / f"{step}.json").unlink(missing_ok=True)


def _why_skipped(metrics: Metrics) -> str | None:
    """Returns why a step's update was skipped, or None if it was applied."""
    if metrics["bad_steps"]:
        return "loss or gradient not finite"
    if metrics["loss_limit"] is None:
        return None
    loss, limit = float(metrics["loss"]), float(metrics["loss_limit"])
    return f"loss {loss:.3f} spikes above {limit:.3f}" if loss > limit else None


def _json(number: Any) -> float | str:
    """Returns the number, or its name if JSON cannot express it."""
    value = float(number)
    return value if math.isfinite(value) else str(value)
