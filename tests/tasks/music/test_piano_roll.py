"""Tests the picture of notes."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np

from gpt2_jax.tasks.music.notes import Note
from gpt2_jax.tasks.music.piano_roll import piano_roll


def test_prompt_and_continuation_have_their_colors():
    first, second = [Note(0, 60, 16)], [Note(16, 72, 16)]

    def has(png: bytes, color: tuple[int, int, int]) -> bool:
        pixels = np.round(matplotlib.image.imread(io.BytesIO(png))[..., :3] * 255)
        rows = pixels[: int(0.75 * len(pixels))]  # above the legend
        return bool((rows == color).all(-1).any())

    blue, orange = (0x44, 0x77, 0xAA), (0xCC, 0x66, 0x33)
    both = piano_roll(first, second, [0, 16], "title")
    assert has(both, blue) and has(both, orange)
    alone = piano_roll(first, [], [0])
    assert has(alone, blue) and not has(alone, orange)
    assert piano_roll([], [], []).startswith(b"\x89PNG")
