"""Tests penalties, biases and bans against plain loops over the text so far."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gpt2_jax.inference.penalties import History, penalized
from gpt2_jax.inference.sampling import SamplingOptions, settings_of

_V, _S = 11, 24
_run = jax.jit(penalized)


def _expected(
    logits: np.ndarray, prompt: list[int], generated: list[int], options: SamplingOptions
) -> np.ndarray:
    """The changed logits of one row, one token at a time."""
    result, text = logits.astype(np.float64), [*prompt, *generated]
    for token in range(_V):
        if token in text:
            factor = options.repetition_penalty
            result[token] = result[token] / factor if result[token] > 0 else result[token] * factor
        if token in generated:
            result[token] -= options.presence_penalty
            result[token] -= options.frequency_penalty * generated.count(token)
        result[token] += dict(options.logit_bias).get(token, 0.0)
    if size := options.no_repeat_ngram_size:
        begun = text[len(text) - size + 1 :] if size > 1 else []
        for start in range(len(text) - size + 1):
            if text[start : start + size - 1] == begun:
                result[text[start + size - 1]] = -np.inf
    return result


def _penalized(
    logits: np.ndarray, rows: list[tuple[list[int], list[int], SamplingOptions]]
) -> np.ndarray:
    B = len(rows)
    tokens = np.full((B, _S), 3, np.int32)  # what lies beyond a text means nothing
    counts, in_prompt = np.zeros((B, _V), np.int32), np.zeros((B, _V), bool)
    for i, (prompt, generated, _) in enumerate(rows):
        tokens[i, : len(prompt) + len(generated)] = [*prompt, *generated]
        counts[i] = np.bincount(generated, minlength=_V)
        in_prompt[i, prompt] = True
    lengths = np.array([len(prompt) + len(generated) for prompt, generated, _ in rows], np.int32)
    settings = [settings_of(options, (), 0).penalties for *_, options in rows]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *settings)
    return np.asarray(_run(logits, stacked, History(tokens, lengths, counts, in_prompt)))


_OPTIONS = [
    SamplingOptions(),
    SamplingOptions(presence_penalty=1.5),
    SamplingOptions(presence_penalty=-0.5, frequency_penalty=0.75),
    SamplingOptions(frequency_penalty=-2),
    SamplingOptions(repetition_penalty=1.3),
    SamplingOptions(repetition_penalty=0.5, presence_penalty=0.25),
    SamplingOptions(logit_bias={0: -100, 7: 3.5}),
    SamplingOptions(logit_bias={10: 100}, repetition_penalty=2, no_repeat_ngram_size=2),
    *(SamplingOptions(no_repeat_ngram_size=n) for n in (1, 2, 3, 4, 30, 2**31 - 1)),
]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_every_row_is_penalized_as_a_plain_loop_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few different tokens, so that n-grams occur again.
    texts = [rng.integers(0, 4, rng.integers(1, _S + 1)).tolist() for _ in _OPTIONS]
    cuts = [rng.integers(1, len(text) + 1) for text in texts]
    rows = [(text[:c], text[c:], o) for text, c, o in zip(texts, cuts, _OPTIONS, strict=True)]
    logits = rng.normal(0, 2, (len(rows), _V)).astype(np.float32)
    found = _penalized(logits, rows)
    for row, changed, (prompt, generated, options) in zip(logits, found, rows, strict=True):
        wanted = _expected(row, prompt, generated, options)
        np.testing.assert_allclose(changed, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found[0], logits[0])


def test_known_bans() -> None:
    cases = {
        (1, 2, 3, 1, 2): (3, {3}),
        (1, 2, 3, 1, 2, 4, 1, 2): (3, {3, 4}),
        (1, 2, 3): (3, set()),
        (5, 5, 5): (2, {5}),
        (5, 6, 5): (1, {5, 6}),
        (4,): (2, set()),
    }
    for text, (size, banned) in cases.items():
        row = ([text[0]], [*text[1:]], SamplingOptions(no_repeat_ngram_size=size))
        found = _penalized(np.zeros((1, _V), np.float32), [row])[0]
        assert {*np.flatnonzero(np.isneginf(found)).tolist()} == banned, text
