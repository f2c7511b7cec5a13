"""Tests the server with OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.serving import Client, saying

pytestmark = pytest.mark.openai


@pytest.fixture
def openai(client: Client) -> Iterator[Any]:
    import openai

    url = f"http://127.0.0.1:{client.port}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as made:
        yield made


def test_completions_of_the_client(openai: Any) -> None:
    answer = openai.completions.create(
        model="tiny", prompt=["ab", "xy"], n=2, seed=3, max_tokens=6, logprobs=2, echo=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.completion_tokens == 24
    assert answer.choices[2].logprobs.tokens[:2] == ["x", "y"]
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    assert [model.id for model in openai.models.list()] == ["tiny"]
    assert openai.models.retrieve("tiny").owned_by == "gpt2_jax"


def test_streams_of_the_client(openai: Any) -> None:
    fields = saying("a\u2028\x85".encode(), b"xyz")
    bias = fields.pop("logit_bias")
    ngrams = {"no_repeat_ngram_size": fields.pop("no_repeat_ngram_size")}
    stream = openai.completions.create(
        model="tiny",
        stream=True,
        stop=["yz"],
        logit_bias=bias,
        stream_options={"include_usage": True},
        extra_body=ngrams,
        **fields,
    )
    chunks = [*stream]
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "a\u2028\x85x"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 9


def test_errors_of_the_client(openai: Any) -> None:
    import openai as package

    with pytest.raises(package.NotFoundError) as missing:
        openai.completions.create(model="none", prompt="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(package.BadRequestError) as wrong:
        openai.completions.create(model="tiny", prompt="x", max_tokens=10**6, stream=True)
    assert wrong.value.param == "max_tokens"
