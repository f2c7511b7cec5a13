"""Our loader alone, without a model."""

from __future__ import annotations

import time
from typing import Any

from gpt2_jax.config import load_config
from gpt2_jax.data.token_sets import open_sets


class Loading:
    """Makes batches in order."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Opens the folder."""
        overrides = [
            f"data.path={task['data']}",
            f"train.batch_size={task['batch']}",
            f"model.context_length={task['context']}",
            "model.vocab_size=50257",
            "compute.loss_chunk=0",
        ]
        self._source = open_sets(load_config("configs/gpt2_small.py", overrides)).source
        self._rows, self._step = range(task["batch"]), 0
        self.facts: dict[str, Any] = {}
        self.run("batch", 2)

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a batch, and answers its number of tokens."""
        began = time.perf_counter()
        for _ in range(count):
            batch = self._source.rows(self._step, self._rows)
            self._step += 1
        return {"seconds": (time.perf_counter() - began) / count, "values": [batch.inputs.size]}


def prepare(task: dict[str, Any]) -> Loading:
    """Returns our loader."""
    return Loading(task)
