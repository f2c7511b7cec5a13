"""The results of a sweep: results.csv, a line for each point in the order of the sweep.

It has no times, so that a sweep gives the same file however often it was interrupted. The times are
in status.json of each point.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from gpt2_jax.files.atomic import write_file
from gpt2_jax.sweeps.folder import DIVERGED, DONE, SweepFolder
from gpt2_jax.sweeps.points import Point
from gpt2_jax.training.metrics_file import last_evaluation, last_step

_COLUMNS = ("name", "stage", "arm", "seed", "state", "steps", "tokens")


class Results:
    """Reads what the points of a sweep have reached; a point that is done is read once."""

    def __init__(self, folder: SweepFolder) -> None:
        """Takes the folder of the sweep."""
        self._folder = folder
        self._scores: dict[str, dict[str, float]] = {}

    def scores(self, point: Point) -> dict[str, float]:
        """Returns the numbers of the last validation of a point that is done, otherwise {}."""
        if self._folder.status(point.name).state != DONE:
            return {}
        if point.name not in self._scores:
            self._scores[point.name] = last_evaluation(self._folder.workdir(point.name))[0]
        return self._scores[point.name]

    def score(self, point: Point, metric: str) -> float | None:
        """Returns a metric of a point, or None if it is not done or has no such finite number."""
        return self.scores(point).get(metric)

    def write(self, points: Sequence[Point]) -> None:
        """Writes results.csv.

        A point that diverged, or that `train.patience` may have ended, has the steps that it took.
        One that diverged has no metrics, because the endpoint of a run is its last step. Points
        that failed or wait have neither.
        """
        numbers = [self.scores(point) for point in points]
        metrics = sorted({name for each in numbers for name in each})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_COLUMNS, *metrics])
        for point, each in zip(points, numbers, strict=True):
            state = self._folder.status(point.name).state
            steps: int | None = None
            if state == DONE and not point.config.train.patience:
                steps = point.config.train.total_steps
            elif state in (DONE, DIVERGED):
                steps = last_step(self._folder.workdir(point.name))
            tokens = None if steps is None else steps * point.config.tokens_per_step
            row = [point.name, point.stage, point.arm, point.seed, state, steps, tokens]
            writer.writerow([*row, *(each.get(name) for name in metrics)])  # None is empty
        write_file(self._folder.path / "results.csv", text.getvalue().encode())
