"""The steps whose update was skipped: what is said of them, and kept for who looks into them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax

from gpt2_jax.errors import NumbersWentBad, shortened
from gpt2_jax.files.storage import write_whole
from gpt2_jax.parallel.distributed import is_primary
from gpt2_jax.train.run import Run
from gpt2_jax.train.step import Metrics, norms_by_name

# Files of the newest bad steps: those of a row share their parameters, and a few tell as much as
# all; a run that goes bad every night does not fill the disk.
KEPT = 20


class BadSteps:
    """Looks for skipped updates in every step's metrics; `<workdir>/bad_steps/` has the details.

    A file `<step>.json` there has the `reason` and the step's `loss`, `grad_norm`, `learning_rate`
    and `grad_norms` by parameter and layer, numbers that are not finite as "nan", "inf" and "-inf";
    the number of its `batch`; and for each of the `rows` of that the folder and the first of its
    `row_tokens` tokens in that folder's train split.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._folder = run, run.workdir / "bad_steps"

    def check(self, step: int, metrics: Metrics) -> str | None:
        """What to say of a step whose update was skipped, None of others; each process must ask.

        Raises:
          NumbersWentBad: after `train.max_bad_steps` in a row that were not finite.
        """
        reason, in_a_row = _why_skipped(metrics), int(metrics["bad_steps"])
        if reason is None:
            return None
        where = self._write(step, reason, metrics)
        if in_a_row < self._run.config.train.max_bad_steps:
            return f"step {step}: {reason}, update skipped: {where}"
        raise NumbersWentBad(
            f"the loss or gradient was not finite in {in_a_row} steps in a row, up to step {step}; "
            "the parameters are as before them. Look at the data, or lower schedule.learning_rate "
            f"in another --workdir: {where}"
        )

    def _write(self, step: int, reason: str, metrics: Metrics) -> str:
        """Process 0 writes the step's file; returns where, or why there is none."""
        path = self._folder / f"{step}.json"
        if is_primary():
            try:
                self._folder.mkdir(exist_ok=True)
                record = self._record(step, reason, jax.device_get(metrics))
                write_whole(path, record.encode())
                self._drop_all_but_newest(path)
            except Exception as error:  # of a disk or a bucket: no reason to end a run that goes on
                return f"can't write {path}: {shortened(str(error), 200)}"
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
        # A line for each, where indent= would make four of every row.
        lines = (f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in values.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def _drop_all_but_newest(self, written: Path) -> None:
        # In a run that was set back the others may be of later steps: this one stays all the same.
        steps = {int(p.stem) for p in self._folder.glob("*.json") if p.stem.isdigit()}
        for step in sorted(steps - {int(written.stem)})[: -(KEPT - 1)]:
            (self._folder / f"{step}.json").unlink(missing_ok=True)


def _why_skipped(metrics: Metrics) -> str | None:
    """What kept a step's update from being applied; None if nothing did."""
    if metrics["bad_steps"]:
        return "loss or gradient not finite"
    if metrics["loss_limit"] is None:
        return None
    loss, limit = float(metrics["loss"]), float(metrics["loss_limit"])
    return f"loss {loss:.3f} spikes above {limit:.3f}" if loss > limit else None


def _json(number: Any) -> float | str:
    """The number, or its name where JSON has none."""
    value = float(number)
    return value if math.isfinite(value) else str(value)
