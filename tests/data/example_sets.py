"""Examples in memory, for tests of what reads them."""

from __future__ import annotations

import numpy as np

from gpt2_jax.data.examples import Examples, digest
from gpt2_jax.data.shards import TokenArray

EOT = 60


def make_examples(pairs):
    """Returns the examples of (prompt ids, answer ids), each answer followed by `EOT`."""
    tokens, starts, answers, stops, digests = [], [], [], [], []
    for prompt, answer in pairs:
        starts.append(len(tokens))
        answers.append(len(tokens) + len(prompt))
        tokens += [*prompt, *answer, EOT]
        stops.append(len(tokens))
        digests.append(digest(np.array(prompt, np.uint16), np.array(answer, np.uint16)))
    arrays = (np.array(each, np.int64) for each in (starts, answers, stops))
    lines = np.arange(1, len(starts) + 1)
    stream = TokenArray([np.array(tokens, np.uint16)])
    return Examples(stream, *arrays, lines, np.array(digests, np.uint64))


def random_pairs(count, seed=0, longest=6):
    """Returns pairs of prompts and answers of 1 to `longest` ids below `EOT`."""
    rng = np.random.default_rng(seed)
    return [
        tuple(rng.integers(0, EOT, rng.integers(1, longest + 1)).tolist() for _ in range(2))
        for _ in range(count)
    ]
