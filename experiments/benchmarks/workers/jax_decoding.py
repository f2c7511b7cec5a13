"""Our greedy generation."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from gpt2_jax.formats.load import load
from gpt2_jax.inference.generate import decode_params, generate_text
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import build_decoder

_GREEDY = SamplingOptions(temperature=0)


class Decoding:
    """Generates for batches of prompts, one for each part."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Loads the model."""
        model = load(task["weights"])
        compute = dataclasses.replace(model.config.compute, dtype=task["dtype"])
        self._decoder = build_decoder(model.config.model, compute)
        self._params = decode_params(self._decoder, model.params)
        self._tokenizer = model.tokenizer
        self._prompts = {part: np.load(path).tolist() for part, path in task["prompts"].items()}
        self._new, self._warm = task["new"], set[str]()
        self.facts: dict[str, Any] = {}

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a generation, and answers its tokens; before the first of a part, compiles."""
        if part not in self._warm:
            self._generate(part)
            self._warm.add(part)
        began = time.perf_counter()
        for _ in range(count):
            tokens = self._generate(part)
        return {"seconds": (time.perf_counter() - began) / count, "tokens": tokens}

    def _generate(self, part: str) -> list[list[int]]:
        samples = generate_text(
            self._decoder,
            self._params,
            self._tokenizer,
            self._prompts[part],
            max_new_tokens=self._new,
            options=_GREEDY,
        )
        return [[int(token) for token in sample.tokens] for sample in samples]


def prepare(task: dict[str, Any]) -> Decoding:
    """Returns our generation."""
    return Decoding(task)
