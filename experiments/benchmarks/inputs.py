"""What the subjects of a case read: weights, tokens and folders of data, each made once."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.case import Case, Shape
from experiments.benchmarks.processes import ROOT

_BATCHES = 24  # different ones, before they repeat
# 65 characters, as many as tinyshakespeare has.
_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:!?'-&\n3$"


class Unavailable(Exception):
    """Says why a case cannot be measured on this machine."""


@dataclasses.dataclass
class Inputs:
    """Makes inputs in a folder.

    Attributes:
      folder: where they are made.
      tiny: whether texts are made up instead of read.
      write_weights: writes the weights of a shape into a folder.
      environment: the environment of our commands.
    """

    folder: Path
    tiny: bool
    write_weights: Callable[[Shape, Path], None]
    environment: dict[str, str]

    def fill(self, case: Case) -> dict[str, Any]:
        """Returns the case's task with the paths of its inputs.

        Raises:
          Unavailable: if a text cannot be had.
        """
        task = {**case.task, "folder": str(self.folder)}
        if "shape" in task:
            shape = Shape(**task["shape"])
            task["weights"] = self._weights(shape)
        if case.kind == "train":
            task["tokens"] = self._tokens(shape.vocab, _BATCHES, task["batch"], shape.context + 1)
        elif case.kind == "scaling":
            shapes = {name: Shape(**values) for name, values in task["shapes"].items()}
            task["weights"] = {name: self._weights(shape) for name, shape in shapes.items()}
            task["tokens"] = {
                name: self._tokens(shape.vocab, _BATCHES, task["batch"], shape.context + 1)
                for name, shape in shapes.items()
            }
        elif case.kind == "decode":
            task["prompts"] = {
                part: self._tokens(shape.vocab, *size) for part, size in task["batches"].items()
            }
        elif case.kind == "score":
            task["windows_file"] = self._tokens(shape.vocab, task["windows"], shape.context + 1)
        elif case.kind == "load":
            task["data"] = self._headerless(task["file_tokens"])
        elif "data" in task:
            task["data"] = self._prepared(task["data"])
        return task

    def _weights(self, shape: Shape) -> str:
        name = "-".join(str(value) for value in dataclasses.astuple(shape))
        folder = self.folder / "weights" / name
        if not folder.exists():
            self.write_weights(shape, folder)
        return str(folder)

    def _tokens(self, vocab: int, *sizes: int) -> str:
        """Writes ids whose frequencies fall like those of words, so that there is much to learn."""
        name = "-".join(str(size) for size in (vocab, *sizes))
        path = self.folder / f"tokens-{name}.npy"
        if not path.exists():
            draws = np.random.default_rng(1).zipf(1.2, sizes)
            np.save(path, ((draws - 1) % vocab).astype(np.int32))
        return str(path)

    def _headerless(self, count: int) -> str:
        """Writes tokens in nanoGPT's format, which our loader and the usual one both read."""
        folder = self.folder / "headerless"
        if not folder.exists():
            folder.mkdir()
            ids = np.random.default_rng(2).integers(0, 50257, count).astype("<u2")
            ids.tofile(folder / "train.bin")
            ids[:1000].tofile(folder / "val.bin")
        return str(folder)

    def _prepared(self, name: str) -> str:
        """Prepares the text of a small config."""
        folder = self.folder / "data" / name
        if folder.exists():
            return str(folder)
        words = ["--tokenizer", "char" if name == "shakespeare_char" else "byte"]
        if self.tiny:
            text = self.folder / "text.txt"
            letters = random.Random(0).choices(_CHARACTERS, k=20_000)
            text.write_text(_CHARACTERS + "".join(letters), "utf-8")
            words += ["--input", str(text)]
        elif name == "shakespeare_char":
            words += ["--corpus", "tinyshakespeare"]
        else:
            words += ["--corpus", "python-stdlib", "--val_fraction", "0.01"]
        command = [sys.executable, "-m", "gpt2_jax", "prepare", *words, "--out", str(folder)]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise Unavailable(done.stderr.strip().splitlines()[-1])
        return str(folder)
