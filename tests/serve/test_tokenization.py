"""Tests what lm-eval's remote tokenizer asks for, and scores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpt2_jax.serve import tokenization
from gpt2_jax.serve.token_names import TokenNames
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from tests.serve.serving import AB, EOT, Client, pieces_tokenizer


def _served(tokenizer: Tokenizer) -> Any:
    worker = SimpleNamespace(max_length=9)
    return SimpleNamespace(tokenizer=tokenizer, names=TokenNames(tokenizer), worker=worker)


@pytest.mark.parametrize(
    "tokenizer, eos, bos, eos_id",
    [
        (ByteTokenizer(), "<|endoftext|>", "<|endoftext|>", 256),
        (pieces_tokenizer(), "<|endoftext|>", "<|endoftext|>", EOT),
        (CharTokenizer("\nab"), None, "\n", None),
        (IdsTokenizer(9, "why", bos=3), None, " 3", None),
    ],
)
def test_the_names_of_special_tokens_become_these(
    tokenizer: Tokenizer, eos: str | None, bos: str, eos_id: int | None
) -> None:
    model = _served(tokenizer)
    info = tokenization.tokenizer_info(model)
    assert (info["eos_token"], info["bos_token"]) == (eos, bos)
    if eos is not None:
        assert tokenization.tokenize(model, {"prompt": eos})["tokens"][0] == eos_id
        text = f"a{eos}b{eos}"
        tokens = tokenization.tokenize(model, {"prompt": text})["tokens"]
        assert tokens.count(eos_id) == 2
        assert tokenization.detokenize(model, {"tokens": tokens}) == {"prompt": text}


def test_every_token_has_a_name_of_its_own() -> None:
    for tokenizer in (
        ByteTokenizer(),
        pieces_tokenizer(),
        CharTokenizer("\nab"),
        IdsTokenizer(9, "why"),
    ):
        names = TokenNames(tokenizer)
        named = [names.name(token) for token in range(tokenizer.vocab_size)]
        assert len({*named}) == tokenizer.vocab_size
        assert all(named)
    assert TokenNames(ByteTokenizer()).name(0xE2) == "bytes:\\xe2"


def test_texts_are_encoded_and_decoded_over_http(client: Client) -> None:
    reply = client.post("/tokenize", prompt="abx\u00e9", add_special_tokens=False).json
    assert reply == {"tokens": [AB, 120, 195, 169], "count": 4, "max_model_len": 32}
    assert client.post("/detokenize", tokens=reply["tokens"]).json == {"prompt": "abx\u00e9"}
    assert client.post("/tokenize", model="tiny", prompt="").json["tokens"] == []
    assert client.post("/detokenize", tokens=[]).json == {"prompt": ""}
    for path, fields, param in (
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "\ud800"}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [10**40]}, "tokens"),
        ("/detokenize", {"tokens": [True]}, "tokens"),
    ):
        reply = client.post(path, **fields)
        assert (reply.status, reply.error["param"]) == (400, param)
    assert client.post("/tokenize", prompt="a", model="none").status == 404
    assert client.get("/tokenizer_info").json["eos_token"] == "<|endoftext|>"


def test_scores_are_those_of_an_echoed_prompt(client: Client) -> None:
    listed = client.complete("xyz vw", echo=True, max_tokens=0, logprobs=1)
    values = listed["choices"][0]["logprobs"]["token_logprobs"]
    (whole,) = client.post("/v1/score", model="tiny", prompt="xyz vw").json["scores"]
    assert whole["token_logprobs"] == values
    assert whole["logprob"] == pytest.approx(sum(values[1:]))
    reply = client.post("/v1/score", model="tiny", context="xyz", continuations=[" vw", " v"])
    first, second = reply.json["scores"]
    assert (first["tokens"], second["tokens"]) == ([" ", "v", "w"], [" ", "v"])
    assert first["token_logprobs"] == pytest.approx(values[3:], abs=1e-5)
    assert (first["index"], second["index"]) == (0, 1)
    best = client.complete([1, 2], max_tokens=2, temperature=0, return_token_ids=True)
    tokens = best["choices"][0]["token_ids"]
    reply = client.post(
        "/v1/score", model="tiny", context=[1, 2], continuations=[tokens, [tokens[0], 7]]
    )
    assert [score["is_greedy"] for score in reply.json["scores"]] == [True, tokens[1] == 7]


def test_what_lm_eval_reads_of_an_echo(client: Client) -> None:
    fields = {"max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234, "temperature": 0}
    answer = client.complete([[65, 66, 67, 68], [70, 71, 72]], **fields)
    for choice, count in zip(answer["choices"], (4, 3), strict=True):
        listed = choice["logprobs"]
        assert len(listed["token_logprobs"]) == len(listed["top_logprobs"]) == count + 1
        assert listed["token_logprobs"][0] is listed["top_logprobs"][0] is None
        for value, top in zip(
            listed["token_logprobs"][1:-1], listed["top_logprobs"][1:-1], strict=True
        ):
            assert value <= max(top.values())
            assert value in top.values()
