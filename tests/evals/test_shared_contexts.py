"""Tests that continuations of the same context are grouped, and the context is computed once."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax.evals.harness import GPT2JaxLM
from gpt2_jax.evals.shared_contexts import group_by_context
from gpt2_jax.inference.scoring import Scorer
from tests.evals.plain_forwards import needs_lm_eval, requests

_tokens = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@given(st.lists(st.tuples(st.sampled_from([(1,), (1, 2), (2, 2), (1, 2, 3)]), _tokens)))
def test_neighbors_of_one_context_share_a_request(pairs: Any) -> None:
    shared = list(group_by_context(pairs))
    assert [place for _, places in shared for place in places] == list(range(len(pairs)))
    for request, places in shared:
        assert [(request.context, one) for one in request.continuations] == [
            pairs[place] for place in places
        ]
        assert 1 <= len(places) <= (1 if len(request.context) == 1 else 8)
    for (one, places), (other, _) in itertools.pairwise(shared):
        same = one.context == other.context and len(one.context) > 1
        assert not same or len(places) == 8


@needs_lm_eval
def test_the_contexts_of_multiple_choice_are_computed_once(
    model: GPT2JaxLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[int] = []
    score = Scorer.score

    def counting(scorer: Scorer, asked: Any) -> Any:
        contexts.extend(len(request.continuations) for request in asked)
        return score(scorer, asked)

    monkeypatch.setattr(Scorer, "score", counting)
    pairs = [(context, f" {choice}") for context in ("one", "two") for choice in "abcd"]
    model.loglikelihood(requests("loglikelihood", *pairs))
    assert contexts == [4, 4]
