"""Measures whether music goes on in its key and its meter, and how often chance would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from gpt2_jax.tasks.music.notes import STEPS, Note

# How well each pitch class fits C major and C minor, as listeners rated them (Krumhansl and Kessler
# 1982; Krumhansl 1990, "Cognitive Foundations of Musical Pitch", table 2.1).
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_PROFILES_24x12 = np.array(
    [np.roll(mode, tonic) for mode in (_MAJOR, _MINOR) for tonic in range(12)]
)
_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_PERMUTATIONS = 10_000
_SEED = 0


class Chance(NamedTuple):
    """Compares the agreement of pairs with that of shuffled pairs.

    Attributes:
      value: mean agreement of each beginning with its own continuation.
      chance: mean agreement of beginnings with the continuations of others.
      p: how often shuffled pairs agree as well or better, at least 1 / (permutations + 1).
    """

    value: float
    chance: float
    p: float


def key_scores(notes: Iterable[Note]) -> np.ndarray:
    """Returns how well the notes fit each key, float64 [24]: C major ... B major, C minor ...

    A score is the correlation of the time that each pitch class sounds with the key's profile; all
    are 0 if there are no notes, or all classes sound alike.
    """
    sounding = np.zeros(12)
    for note in notes:
        sounding[note.pitch % 12] += note.length
    centered = sounding - sounding.mean()
    if not np.any(centered):
        return np.zeros(24)
    profiles = _PROFILES_24x12 - _PROFILES_24x12.mean(1, keepdims=True)
    scale = np.linalg.norm(profiles, axis=1) * np.linalg.norm(centered)
    return profiles @ centered / scale


def key_name(scores: np.ndarray) -> str:
    """Returns the name of the key that fits best, such as "G major"."""
    best = int(np.argmax(scores))
    return f"{_NAMES[best % 12]} {'major' if best < 12 else 'minor'}"


def on_beat(notes: Sequence[Note]) -> float:
    """Returns the share of notes that begin on a quarter note; 0 if there are none."""
    return float(np.mean([note.start % STEPS == 0 for note in notes])) if notes else 0.0


def key_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the correlation of two `key_scores`, which is 1 for the same key."""
    if not np.any(first) or not np.any(second):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def meter_agreement(first: float, second: float) -> float:
    """Returns 1 minus the difference of two `on_beat`."""
    return 1 - abs(first - second)


def against_chance(
    firsts: Sequence, seconds: Sequence, agreement: Callable[..., float]
) -> Chance | None:
    """Compares pairs with all others by a permutation test; None for fewer than two pairs.

    Args:
      firsts, seconds: what `agreement` takes, of each pair.
      agreement: returns how well two agree.
    """
    count = len(firsts)
    if count < 2:
        return None
    table = np.array([[agreement(a, b) for b in seconds] for a in firsts])
    value = float(np.trace(table)) / count
    rng = np.random.default_rng(_SEED)
    rows = np.arange(count)
    shuffled = [table[rows, rng.permutation(count)].mean() for _ in range(_PERMUTATIONS)]
    # Rounding must not make a permutation that changes nothing differ from the pairs.
    as_well = int(np.sum(np.array(shuffled) >= value - 1e-12))
    others = float(table.sum() - np.trace(table)) / (count * (count - 1))
    return Chance(value, others, (as_well + 1) / (_PERMUTATIONS + 1))
