"""Our scoring of windows of tokens."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from gpt2_jax.formats.load import load
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.scoring import Scorer


class Scoring:
    """Scores windows; the first token of each is only read."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Loads the model and scores once, which compiles."""
        model = load(task["weights"])
        compute = dataclasses.replace(model.config.compute, dtype=task["dtype"])
        self._scorer = Scorer(model.params, model.config.model, compute)
        windows = np.load(task["windows_file"]).tolist()
        self._requests = [Request((window[0],), (tuple(window[1:]),)) for window in windows]
        began = time.perf_counter()
        self._score()
        self.facts = {"first_run_seconds": time.perf_counter() - began}

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a pass over the windows, and answers the log-probability of each."""
        began = time.perf_counter()
        for _ in range(count):
            totals = self._score()
        return {"seconds": (time.perf_counter() - began) / count, "values": totals}

    def _score(self) -> list[float]:
        scores = dict(self._scorer.score(self._requests))
        return [scores[i][0].total for i in range(len(self._requests))]


def prepare(task: dict[str, Any]) -> Scoring:
    """Returns our scorer."""
    return Scoring(task)
