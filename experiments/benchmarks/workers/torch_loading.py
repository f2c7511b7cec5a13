"""The usual loader of small trainers in torch: random windows of a file mapped into memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Loading:
    """Makes random batches."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Maps the file."""
        self._tokens = np.memmap(Path(task["data"]) / "train.bin", dtype="<u2", mode="r")
        self._batch, self._context = task["batch"], task["context"]
        self.facts: dict[str, Any] = {}
        self.run("batch", 2)

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a batch, and answers its number of tokens."""
        began = time.perf_counter()
        for _ in range(count):
            inputs, _ = draw(self._tokens, self._batch, self._context)
        return {"seconds": (time.perf_counter() - began) / count, "values": [inputs.numel()]}


def draw(tokens: np.ndarray, batch: int, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns inputs and targets, int64 [batch, context], of windows at random places."""
    starts = torch.randint(len(tokens) - context - 1, (batch,)).tolist()
    windows = np.stack([tokens[start : start + context + 1] for start in starts]).astype(np.int64)
    rows = torch.from_numpy(windows)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def prepare(task: dict[str, Any]) -> Loading:
    """Returns the loader."""
    return Loading(task)
