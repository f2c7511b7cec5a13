from __future__ import annotations

import zlib

import numpy as np
import pytest

from gpt2_jax.evals.compression import compressed_bits_per_byte

_WORDS = ["the", "model", "reads", "text", "and", "writes", "numbers", "down"]


def words(count, seed=0):
    rng = np.random.default_rng(seed)
    return " ".join(_WORDS[i] for i in rng.integers(0, len(_WORDS), count)).encode()


def test_bits_per_byte_follow_how_much_there_is_to_compress():
    noise = np.random.default_rng(0).integers(0, 256, 20_000).astype(np.uint8).tobytes()
    repeated, text, random = (
        compressed_bits_per_byte(data) for data in (b"same " * 4000, words(4000), noise)
    )
    assert repeated.keys() == text.keys() == random.keys() == {"gzip -9", "xz -9"}
    for name in text:
        assert 0 < repeated[name] < text[name] < random[name]
        # Eight words of equal chance are three bits each; no compressor does better.
        assert text[name] > 3 * 4000 / len(words(4000))
        assert 8 <= random[name] < 8.3


def test_gzip_is_zlib_and_a_header():
    text = words(4000)
    size = compressed_bits_per_byte(text)["gzip -9"] * len(text) / 8
    assert size == pytest.approx(len(zlib.compress(text, 9)), abs=20)


def test_nothing_to_compress_is_an_error():
    with pytest.raises(ValueError, match="no bytes"):
        compressed_bits_per_byte(b"")
