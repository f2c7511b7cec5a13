"""Measures the baseline: tiktoken alone on the same text, without writing anything.

    python experiments/benchmarks/prepare/bare.py PATH THREADS

Reads the text file in pieces of about 64 KB that end with a line, or each file of the folder,
passes 256 of these documents at a time to `tiktoken.Encoding.encode_ordinary_batch(documents,
num_threads=THREADS)`, and prints the number of tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from gpt2_jax.tokenizers import vocabulary

_BATCH = 256
_PIECE = 1 << 16


def documents(path: Path) -> Iterator[str]:
    """Yields the documents to encode."""
    if path.is_dir():
        for file in sorted(path.rglob("*.txt")):
            yield file.read_text("utf-8")
        return
    with open(path, encoding="utf-8", newline="") as file:
        while piece := "".join(file.readlines(_PIECE)):
            yield piece


def main() -> None:
    """Encodes all documents once and prints the number of tokens."""
    path, threads = Path(sys.argv[1]), int(sys.argv[2])
    encoding = vocabulary.encoding(vocabulary.gpt2_vocabulary())
    tokens, batch = 0, []
    for document in documents(path):
        batch.append(document)
        if len(batch) == _BATCH:
            tokens += sum(map(len, encoding.encode_ordinary_batch(batch, num_threads=threads)))
            batch = []
    tokens += sum(map(len, encoding.encode_ordinary_batch(batch, num_threads=threads)))
    print(tokens)


if __name__ == "__main__":
    main()
