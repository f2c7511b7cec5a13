"""Tests that lm-eval's `local-completions` measures through the server what the engine computes."""

from __future__ import annotations

from typing import Any

import pytest

from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.scoring import Scorer, encode_pair
from tests.serve.serving import CONTEXT, EOT, Client, tiny_model

pytestmark = [pytest.mark.lm_eval, pytest.mark.lm_eval_api]


@pytest.fixture
def remote(client: Client) -> Any:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    return LocalCompletionsAPI(
        base_url=f"http://127.0.0.1:{client.port}/v1/completions",
        model="tiny",
        max_length=CONTEXT,
        batch_size=4,
        num_concurrent=3,
    )


def _instances(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


def test_the_tokenizer_of_the_server_is_found(remote: Any) -> None:
    assert remote.tokenizer_backend == "remote"
    assert remote.eot_token_id == EOT
    assert remote.tok_encode("abx") == [256, 120]


def test_log_likelihoods_through_the_server_are_those_computed_directly(remote: Any) -> None:
    pairs = [("the cat", " sat"), ("the cat", " lay"), ("abcd", "e f"), ("", "x"), ("q ", "z")]
    found = remote.loglikelihood(_instances("loglikelihood", *pairs))
    model = tiny_model()
    scorer = Scorer(model.params, model.config.model, model.config.compute)
    for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
        first, second = encode_pair(model.tokenizer, context, continuation)
        ((likelihood,),) = [each for _, each in scorer.score([Request(first, (second,))])]
        assert value == pytest.approx(likelihood.total, abs=1e-4)
        assert greedy == bool(likelihood.greedy.all())


def test_texts_are_generated_until_a_stop(client: Client, remote: Any) -> None:
    asked = ("hi", {"until": ["a", "\n"], "max_gen_toks": 12, "temperature": 0})
    (found,) = remote.generate_until(_instances("generate_until", asked))
    expected = client.complete("hi", stop=["a", "\n"], max_tokens=12, temperature=0)
    assert found == expected["choices"][0]["text"]
