"""Compares two runs: of two models, of two steps of one, or with and without interventions."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.interpret import programs
from gpt2_jax.interpret.attention import head_scores
from gpt2_jax.interpret.run import Run
from gpt2_jax.interpret.stream import TOP, predicted
from gpt2_jax.interpret.text import pieces, takes_text

_ROWS = 64


def compare(a: Run, b: Run) -> dict[str, Any]:
    """Returns how two runs differ, for JSON; numbers are in nats.

    For the same tokens: `kl`, KL(a || b) of the prediction behind each token; `next`, [id, text,
    probability in a, in b] of the tokens that either finds most probable behind the last one; and
    `head_scores`, b's less a's [L, H, 3], if the models have as many heads. For the same text in
    other tokens: `bytes`, [bytes of the text, surprise of a, of b] up to each border between tokens
    that both have, counted from the first such border, as no first token is predicted.

    Raises:
      UserError: if the texts differ.
    """
    if _same_tokens(a, b):
        return {"aligned": "tokens", **_of_tokens(a, b)}
    return {"aligned": "bytes", "bytes": _of_bytes(a, b)}


def _same_tokens(a: Run, b: Run) -> bool:
    """Returns whether the ids are the same and, as far as known, stand for the same text."""
    tokenizers = [run.subject.tokenizer for run in (a, b)]
    known = all(map(takes_text, tokenizers))
    return (
        a.tokens == b.tokens
        and a.subject.config.vocab_size == b.subject.config.vocab_size
        and not (known and tokenizers[0].to_dict() != tokenizers[1].to_dict())
    )


def _of_tokens(a: Run, b: Run) -> dict[str, Any]:
    probs_a, probs_b = (_probabilities(run) for run in (a, b))
    listed = sorted({*_best(probs_a), *_best(probs_b)}, key=lambda i: -probs_a[i])
    tokenizer = a.subject.tokenizer
    entries = [
        [i, pieces(tokenizer, [i])[0].text, float(probs_a[i]), float(probs_b[i])] for i in listed
    ]
    scores_a, scores_b = head_scores(a), head_scores(b)
    same = scores_a.shape == scores_b.shape
    change = (scores_b - scores_a).tolist() if same else None
    return {"kl": divergences(a, b).tolist(), "next": entries, "head_scores": change}


def divergences(a: Run, b: Run) -> np.ndarray:
    """Returns KL(a || b) of the prediction behind each token, [T] in nats."""
    found = []
    for start in range(0, len(a), _ROWS):
        arguments: list[Any] = []
        for run in (a, b):
            x_NxD = run.residual[-1, start : start + _ROWS]
            # Always as many rows, so that all texts share one program.
            x_NxD = np.pad(x_NxD, ((0, _ROWS - len(x_NxD)), (0, 0)), mode="edge")
            arguments += [run.subject.model, run.subject.outside, x_NxD]
        found.append(np.asarray(programs.divergence(*arguments)))
    return np.concatenate(found)[: len(a)]


def _probabilities(run: Run) -> np.ndarray:
    logits_V = run.logits().astype(np.float64)
    weights_V = np.exp(logits_V - logits_V.max())
    return weights_V / weights_V.sum()


def _best(probs_V: np.ndarray) -> list[int]:
    return np.argsort(-probs_V, kind="stable")[:TOP].tolist()


def _of_bytes(a: Run, b: Run) -> list[list[float]]:
    """Returns [bytes, surprise of a, surprise of b] at each border that both have.

    Surprise is counted from the first of them on, so that both count the same bytes.
    """
    if not all(takes_text(run.subject.tokenizer) for run in (a, b)):
        raise UserError("the runs are of different ids, and what text these stand for is unknown")
    totals = [_surprise(run) for run in (a, b)]
    texts = [b"".join(p.data for p in pieces(r.subject.tokenizer, r.tokens)) for r in (a, b)]
    if texts[0] != texts[1]:
        raise UserError("the runs are of different texts: compare runs of the same one")
    common = sorted(totals[0].keys() & totals[1].keys())  # the text's end at least
    before = [total[common[0]] for total in totals]
    return [[at, totals[0][at] - before[0], totals[1][at] - before[1]] for at in common]


def _surprise(run: Run) -> dict[int, float]:
    """Returns {bytes up to the end of a token: -log p of the text from its second token on}."""
    logprobs = predicted(run, row=-1, count=1).logprob
    ends = np.cumsum([len(piece.data) for piece in pieces(run.subject.tokenizer, run.tokens)])
    sums = np.concatenate([[0.0], -np.cumsum(logprobs[:-1].astype(np.float64))])
    return dict(zip(ends.tolist(), sums.tolist(), strict=True))
