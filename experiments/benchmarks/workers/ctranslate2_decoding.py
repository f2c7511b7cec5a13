"""Greedy generation by CTranslate2, which reads a converted copy of the weights."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter


class _Numbers:
    """Stands for a tokenizer whose tokens are the ids in decimal, as the weights have no other."""

    def __init__(self, size: int) -> None:
        self._size = size
        # CTranslate2 asks for three special tokens, and never generates the end of a text.
        self.bos_token = self.eos_token = self.unk_token = str(size - 1)

    def get_vocab(self) -> dict[str, int]:
        return {str(number): number for number in range(self._size)}


class _Converter(TransformersConverter):
    """Converts a model that comes without a tokenizer."""

    def __init__(self, folder: str, vocab: int) -> None:
        super().__init__(folder)
        self._vocab = vocab

    def load_tokenizer(self, tokenizer_class: Any, name: str, **kwargs: Any) -> _Numbers:
        return _Numbers(self._vocab)


class Decoding:
    """Generates for batches of prompts, one for each part."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Converts and loads the model."""
        dtype = task["dtype"]
        on_gpu = torch.cuda.is_available()
        with tempfile.TemporaryDirectory() as folder:
            _Converter(task["weights"], task["shape"]["vocab"]).convert(folder, force=True)
            self._generator = ctranslate2.Generator(
                folder,
                device="cuda" if on_gpu else "cpu",
                compute_type=dtype,
                inter_threads=1,
                intra_threads=0 if on_gpu else os.cpu_count() or 1,
            )
        self._prompts = {
            part: [[str(token) for token in prompt] for prompt in np.load(path).tolist()]
            for part, path in task["prompts"].items()
        }
        self._new, self._warm = task["new"], set[str]()
        self.facts: dict[str, Any] = {}

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a generation, and answers its tokens; before the first of a part, warms up."""
        if part not in self._warm:
            self._generate(part)
            self._warm.add(part)
        began = time.perf_counter()
        for _ in range(count):
            tokens = self._generate(part)
        return {"seconds": (time.perf_counter() - began) / count, "tokens": tokens}

    def _generate(self, part: str) -> list[list[int]]:
        results = self._generator.generate_batch(
            self._prompts[part],
            beam_size=1,
            sampling_topk=1,
            max_length=self._new,
            min_length=self._new,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]


def prepare(task: dict[str, Any]) -> Decoding:
    """Returns the generation of CTranslate2."""
    return Decoding(task)
