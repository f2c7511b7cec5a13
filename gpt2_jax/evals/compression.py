"""Compresses a text with general-purpose compressors, to compare with a model's bits per byte."""

from __future__ import annotations

import gzip
import lzma


def compressed_bits_per_byte(text: bytes) -> dict[str, float]:
    """Returns the bits per byte of `gzip -9` and `xz -9` on the text."""
    if not text:
        raise ValueError("no bytes to compress")
    return {
        "gzip -9": 8 * len(gzip.compress(text, compresslevel=9, mtime=0)) / len(text),
        "xz -9": 8 * len(lzma.compress(text, preset=9)) / len(text),
    }
