"""Greedy generation by transformers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from experiments.benchmarks.workers.torch_device import DEVICE, timed


class Decoding:
    """Generates for batches of prompts, one for each part."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Loads the model."""
        dtype = getattr(torch, task["dtype"])
        model = GPT2LMHeadModel.from_pretrained(
            task["weights"], attn_implementation="sdpa", dtype=dtype
        )
        self._model = model.to(DEVICE).eval()
        self._prompts = {
            part: torch.from_numpy(np.load(path).astype(np.int64)).to(DEVICE)
            for part, path in task["prompts"].items()
        }
        self._new, self._warm = task["new"], set[str]()
        self._tokens: list[list[int]] = []
        self.facts: dict[str, Any] = {}

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a generation, and answers its tokens; before the first of a part, warms up."""
        generate = functools.partial(self._generate, self._prompts[part])
        if part not in self._warm:
            generate()
            self._warm.add(part)
        seconds = timed(generate, count) / count
        return {"seconds": seconds, "tokens": self._tokens}

    @torch.inference_mode()
    def _generate(self, prompts: torch.Tensor) -> None:
        output = self._model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=self._new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        self._tokens = output[:, prompts.shape[1] :].tolist()


def prepare(task: dict[str, Any]) -> Decoding:
    """Returns the generation of transformers."""
    return Decoding(task)
