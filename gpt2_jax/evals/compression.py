"""Compresses a text with general-purpose compressors, to compare with a model's bits per byte."""

from __future__ import annotations

import gzip
import lzma

from gpt2_jax.config import Config
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.data.token_sets import TokenSets

# xz compresses about a megabyte per second, so longer texts are not compared.
_LONGEST = 16 << 20


def compressed_bits_per_byte(text: bytes) -> dict[str, float]:
    """Returns the bits per byte of `gzip -9` and `xz -9` on the text."""
    if not text:
        raise ValueError("no bytes to compress")
    return {
        "gzip -9": 8 * len(gzip.compress(text, compresslevel=9, mtime=0)) / len(text),
        "xz -9": 8 * len(lzma.compress(text, preset=9)) / len(text),
    }


def of_validation(config: Config, sets: TokenSets) -> dict[str, float]:
    """Returns what general-purpose compressors make of the text that a run validates on.

    Returns:
      {"compared_bytes": the bytes of the text, "<compressor> bits_per_byte": ...}, or {} if the
      validation scores only a part of it, it is a mixture, examples or too long to compress.
    """
    tokens, *more = sets.val_tokens.values()
    if not isinstance(tokens, TokenArray):  # examples are no text that could be compressed as one
        return {}
    if config.eval.batches != -1 or len(tokens) >= _LONGEST or more:
        return {}
    scored = tokens.read(1, len(tokens) - 1)
    text = sets.tokenizer.decode_bytes(scored[scored != sets.tokenizer.eot])
    bits = compressed_bits_per_byte(text)
    figures = {f"{name} bits_per_byte": value for name, value in bits.items()}
    return {"compared_bytes": len(text), **figures}
