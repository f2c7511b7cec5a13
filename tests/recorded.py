"""Runs the command, and records a digest of every row of a training batch in RECORD_FOLDER.

Each process writes to a file of its own, one line per batch: its step and the digest of each row.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from gpt2_jax.cli.main import console
from gpt2_jax.data.example_batches import ExampleLoader
from gpt2_jax.data.loader import TrainLoader


def record(loader: type[TrainLoader] | type[ExampleLoader]) -> None:
    path = Path(os.environ["RECORD_FOLDER"]) / f"{os.getpid()}.jsonl"
    make_rows = loader.rows

    def rows(self, step, row_indices):
        batch = make_rows(self, step, row_indices)
        arrays = [array for array in batch if array is not None]
        digests = {
            int(row): hashlib.sha256(b"".join(a[i].tobytes() for a in arrays)).hexdigest()
            for i, row in enumerate(row_indices)
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "digests": digests}) + "\n")
        return batch

    loader.rows = rows


def recorded(folder: Path) -> dict[int, dict[int, str]]:
    """Returns {batch: {row: digest}} of all processes, which must agree on rows they share."""
    batches: dict[int, dict[int, str]] = {}
    for path in folder.iterdir():
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            batch = batches.setdefault(line["step"], {})
            for row, digest in line["digests"].items():
                assert batch.setdefault(int(row), digest) == digest
    return batches


if __name__ == "__main__":
    record(TrainLoader)
    record(ExampleLoader)
    console()
