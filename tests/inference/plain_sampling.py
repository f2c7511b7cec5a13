"""Says in plain Python which tokens may be drawn, and how often."""

from __future__ import annotations

import math

import numpy as np

from gpt2_jax.inference.sampling import SamplingOptions


def expected(logits: np.ndarray, options: SamplingOptions) -> np.ndarray:
    """The distribution [V] the options describe, one token at a time in float64."""
    scaled = [float(x) / options.temperature for x in logits]
    # Most probable first; of equals, the lowest id.
    order = sorted(range(len(scaled)), key=lambda i: (-scaled[i], i))
    order = order[: options.top_k or len(order)]
    weights = [math.exp(scaled[i] - scaled[order[0]]) for i in order]
    total = sum(weights)
    kept: dict[int, float] = {}
    reached = 0.0
    for i, weight in zip(order, weights, strict=True):
        if kept and options.top_p < 1 and reached >= options.top_p:
            break
        reached += weight / total
        if weight >= options.min_p:
            kept[i] = weight
    result = np.zeros(len(logits))
    for i, weight in kept.items():
        result[i] = weight / sum(kept.values())
    return result
