"""Scoring of windows of tokens by transformers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from experiments.benchmarks.workers.torch_device import DEVICE, timed

_ROWS = {"cpu": 4, "cuda": 16}  # windows whose logits exist at a time


class Scoring:
    """Scores windows; the first token of each is only read."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Loads the model and scores once."""
        dtype = getattr(torch, task["dtype"])
        model = GPT2LMHeadModel.from_pretrained(
            task["weights"], attn_implementation="sdpa", dtype=dtype
        )
        self._model = model.to(DEVICE).eval()
        windows = np.load(task["windows_file"]).astype(np.int64)
        self._batches = torch.from_numpy(windows).to(DEVICE).split(_ROWS[DEVICE])
        self._totals: list[float] = []
        began = time.perf_counter()
        self._score()
        self.facts = {"first_run_seconds": time.perf_counter() - began}

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a pass over the windows, and answers the log-probability of each."""
        return {"seconds": timed(self._score, count) / count, "values": self._totals}

    @torch.inference_mode()
    def _score(self) -> None:
        totals = []
        for windows in self._batches:
            logits = self._model(windows[:, :-1], use_cache=False).logits.float()
            targets = windows[:, 1:]
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), reduction="none"
            )
            totals += (-loss.view_as(targets).sum(dim=1)).tolist()
        self._totals = totals


def prepare(task: dict[str, Any]) -> Scoring:
    """Returns the scorer of transformers."""
    return Scoring(task)
