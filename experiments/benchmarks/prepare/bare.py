"""The yardstick: tiktoken alone on the same text, nothing written.

    python experiments/benchmarks/prepare/bare.py PATH THREADS

Reads the text file, in pieces of about 64 KB that end with a line, or each file of the folder;
gives 256 of these documents at a time to `tiktoken.Encoding.encode_ordinary_batch(documents,
num_threads=THREADS)`; prints how many tokens came back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from gpt2_jax.tokenizers import bpe

_BATCH = 256
_PIECE = 1 << 16


def documents(path: Path) -> Iterator[str]:
    """The documents to encode."""
    if path.is_dir():
        for file in sorted(path.rglob("*.txt")):
            yield file.read_text("utf-8")
        return
    with open(path, encoding="utf-8", newline="") as file:
        while piece := "".join(file.readlines(_PIECE)):
            yield piece


def main() -> None:
    """Encodes everything once."""
    path, threads = Path(sys.argv[1]), int(sys.argv[2])
    encoding = bpe.encoding(bpe.gpt2_vocabulary())
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
