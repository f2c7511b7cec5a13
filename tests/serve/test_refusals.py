"""Tests that what is wrong is refused by name, before anything is streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serve.serving import CONTEXT, EOT, Client

_V = EOT + 1
_WRONG: list[tuple[dict[str, Any], str | None, str]] = [
    ({"prompt": []}, "prompt", "not empty"),
    ({"prompt": [[]]}, "prompt", "prompt[0] must be a list of at least one of token ids, not []"),
    ({"prompt": ["a", [1]]}, "prompt", 'prompt[1] is [1] (array) beside prompt[0], "a" (string)'),
    ({"prompt": ["a", 1]}, "prompt", "prompt[1] is 1 (number)"),
    ({"prompt": [True]}, "prompt", "prompt[0] must be an integer, a token id, not true (boolean)"),
    ({"prompt": [1.5]}, "prompt", "prompt[0] must be an integer, a token id, not 1.5 (number)"),
    ({"prompt": [1, "a"]}, "prompt", 'prompt[1] must be an integer, a token id, not "a" (string)'),
    ({"prompt": [[1], [2, None]]}, "prompt", "prompt[1][1] must be an integer, a token id, not nu"),
    ({"prompt": 7}, "prompt", "7 (number)"),
    ({"prompt": {}}, "prompt", "object"),
    ({"prompt": ["a"] * 129}, "prompt", "at most 128 texts, not 129"),
    ({"prompt": [[1]] * 129}, "prompt", "at most 128 lists of token ids, not 129"),
    ({"prompt": [-1]}, "prompt", f"ids are from 0 to {_V - 1}"),
    ({"prompt": [_V]}, "prompt", f"token id {_V}"),
    ({"prompt": [10**400]}, "prompt", "token id 1000"),
    ({"prompt": "\ud800"}, "prompt", "surrogate"),
    ({"temperature": 10**400}, "temperature", "from 0 to 2"),
    ({"logit_bias": {"1": -(10**400)}}, "logit_bias", "from -100 to 100"),
    ({"prompt": [[1], [_V]]}, "prompt", f"prompt[1] has the token id {_V}"),
    ({"prompt": ["a", "\ud800"]}, "prompt", "surrogate"),
    ({"max_tokens": 0}, "max_tokens", "needs echo=true"),
    ({"max_tokens": -1}, "max_tokens", "at least 0"),
    ({"max_tokens": True}, "max_tokens", "boolean"),
    ({"max_tokens": 1.0}, "max_tokens", "integer"),
    ({"n": 0}, "n", "from 1 to 16"),
    ({"n": 17}, "n", "from 1 to 16"),
    ({"n": 16, "prompt": ["a"] * 9}, "n", "144 choices, of at most 128"),
    ({"temperature": -0.1}, "temperature", "from 0 to 2"),
    ({"temperature": 2.1}, "temperature", "from 0 to 2"),
    ({"temperature": "1"}, "temperature", "string"),
    ({"temperature": False}, "temperature", "not false (boolean)"),
    ({"top_p": 1.5}, "top_p", "from 0 to 1"),
    ({"top_k": -2}, "top_k", "at least -1"),
    ({"min_p": -1}, "min_p", "from 0 to 1"),
    ({"presence_penalty": 3}, "presence_penalty", "from -2 to 2"),
    ({"frequency_penalty": -3}, "frequency_penalty", "from -2 to 2"),
    ({"repetition_penalty": 0}, "repetition_penalty", "above 0"),
    ({"repetition_penalty": 11}, "repetition_penalty", "at most 10"),
    ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size", "at least 0"),
    ({"logit_bias": {"1": 101}}, "logit_bias", "from -100 to 100"),
    ({"logit_bias": {"a": 1}}, "logit_bias", "token ids"),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "token ids"),
    ({"logit_bias": {str(_V): 1}}, "logit_bias", "ids are from 0"),
    ({"logit_bias": {"1": 1, "01": 2}}, "logit_bias", "token id 1 twice"),
    ({"logit_bias": [1]}, "logit_bias", 'an object such as {"256": -100}, not [1] (array)'),
    ({"logit_bias": dict.fromkeys(map(str, range(257)), 1)}, "logit_bias", "at most 256"),
    ({"logprobs": 21}, "logprobs", "from 0 to 20"),
    ({"logprobs": True}, "logprobs", "boolean"),
    ({"echo": 1}, "echo", "true or false"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream": False, "stream_options": {}}, "stream_options", "needs stream=true"),
    ({"stream": True, "stream_options": {"usage": True}}, "stream_options", "unknown field"),
    ({"stream": True, "stream_options": 1}, "stream_options", "object"),
    ({"stop": ""}, "stop", 'stop must be a string that is not empty, not ""'),
    ({"stop": 5}, "stop", "not 5 (number)"),
    ({"stop": ["a"] * 33}, "stop", "at most 32 strings, not 33"),
    ({"stop": ["a", 1]}, "stop", "stop[1] must be a string that is not empty, not 1 (number)"),
    ({"seed": 2**64}, "seed", "from -9223372036854775808"),
    ({"seed": 1.5}, "seed", "integer"),
    ({"best_of": 2}, "best_of", "must equal n=1"),
    ({"suffix": "x"}, "suffix", "not supported"),
    ({"ignore_eos": 0}, "ignore_eos", "true or false"),
    ({"stop_token_ids": [_V]}, "stop_token_ids", "ids are from 0"),
    ({"stop_token_ids": [-1]}, "stop_token_ids", "at least 0"),
    ({"stop_token_ids": [*range(16)]}, "stop_token_ids", "at most 15 ids beside the model's own"),
    (
        {"stop_token_ids": [*range(17)], "ignore_eos": True},
        "stop_token_ids",
        "at most 16 ids, not 17",
    ),
    ({"stop_token_ids": 3}, "stop_token_ids", "list"),
    ({"context_overflow": "wrap"}, "context_overflow", "error or slide"),
    ({"model": 3}, "model", "string"),
    ({"model": None}, "model", "missing"),
    ({"max_token": 3}, "max_token", "did you mean 'max_tokens'?"),
    ({"messages": []}, "messages", "did you mean 'prompt'?"),
]
# None of these has room, and all have the code that says so.
_TOO_LONG: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "x" * (CONTEXT + 1)}, "prompt", "exceed the 32 tokens"),
    ({"prompt": [1] * CONTEXT, "max_tokens": 1}, "prompt", "shorten the prompt"),
    ({"prompt": ["a", [1] * CONTEXT][1:]}, "prompt", "prompt of 32 tokens"),
    ({"prompt": ["a", "x" * 40]}, "prompt", "prompt[1] of 40 tokens"),
    ({"prompt": ["a", "x" * 10**5]}, "prompt", "prompt[1] of 100000 characters"),
    ({"prompt": [1] * CONTEXT, "context_overflow": "slide"}, "prompt", "shorten it to 31"),
    ({"prompt": "abc", "max_tokens": 40}, "max_tokens", "or send context_overflow=slide"),
    ({"max_tokens": 10**30}, "max_tokens", "exceed the 32 tokens"),
]


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_is_named_with_its_value_and_its_range(client: Client, stream: bool) -> None:
    """Case 16 and, of streams, that the status says it."""
    for fields, param, message in (*_WRONG, *_TOO_LONG):
        reply = client.post("/v1/completions", **{"model": "tiny", "stream": stream} | fields)
        assert reply.status == 400, fields
        assert reply.headers["x-should-retry"] == "false"
        assert reply.headers["content-type"] == "application/json"
        error = reply.error
        assert {*error} == {"message", "type", "param", "code"}
        assert error["param"] == param, (fields, error)
        assert message in error["message"], (fields, error)
        assert error["type"] == "invalid_request_error"
        too_long = (fields, param, message) in _TOO_LONG
        assert (error["code"] == "context_length_exceeded") == too_long
        assert "\n" not in error["message"] and len(error["message"]) < 400
    assert client.complete(max_tokens=1)["choices"]


def test_null_stands_for_every_default(client: Client) -> None:
    names = {
        "max_tokens",
        "n",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "logit_bias",
        "logprobs",
        "echo",
        "stream",
        "stream_options",
        "stop",
        "best_of",
        "suffix",
        "user",
        "ignore_eos",
        "stop_token_ids",
        "return_token_ids",
        "context_overflow",
    }
    answer = client.complete("ab", seed=1, **dict.fromkeys(names))
    assert answer["choices"] == client.complete("ab", seed=1)["choices"]
    same = client.complete("ab", seed=1, max_tokens=16, top_k=-1, best_of=1, user=["any"])
    assert same["choices"] == answer["choices"]


@pytest.mark.parametrize(
    "body, message",
    [
        (b'{"model":"tiny","temperature":NaN}', "has the number NaN"),
        (b'{"model":"tiny","temperature":Infinity}', "has the number Infinity"),
        (b'{"model":"tiny","temperature":-1e999}', "has the number -1e999, which is too large"),
        (b'{"model":"tiny","stream":true,"n":0}', "from 1 to 16, not 0"),
        (b'{"model":"tiny","n":1,"n":2}', 'has "n" twice'),
        (b'{"model":"tiny","logit_bias":{"7":1,"7":2}}', 'has "7" twice'),
        (b'{"model":"tiny","seed":' + b"9" * 5000 + b"}", "too deep or long"),
        (b'{"model":"tiny"', "not JSON"),
        (b"[1]", "[1] (array)"),
        (b"null", "must be a JSON object, not null"),
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "too deep or long"),
        (b'{"a":' * 50_000, "too deep or long"),
    ],
)
def test_what_is_no_json_object_of_numbers_is_refused_at_once(
    client: Client, body: bytes, message: str
) -> None:
    """Case 17."""
    reply = client.send("POST", "/v1/completions", body, Content_Type="application/json")
    assert reply.status == 400, reply
    assert message in reply.error["message"]
    assert b"Traceback" not in reply.body


def test_other_models_and_paths_and_methods_are_refused(client: Client) -> None:
    reply = client.post("/v1/completions", model="tinny")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert "did you mean 'tiny'?" in reply.error["message"]
    assert client.post("/v1/completions", model="tiny@3").status == 404
    for path, hint in {
        "/v1/models/tinny": "did you mean 'tiny'?; GET /v1/models lists them",
        "/v1/models/": "the name of a model is missing; GET /v1/models lists them",
        "/v1/completion": "did you mean '/v1/completions'?",
        "/v1/completions/": "did you mean '/v1/completions'?",
        "/completions": "did you mean '/v1/completions'?",
        "/v1/tokenize": "did you mean '/tokenize'?",
        "/v1/chat/completions": "there is no chat; send a prompt to /v1/completions",
        "/chat/completions": "there is no chat; send a prompt to /v1/completions",
        "/nowhere/at/all": 'there is no path "/nowhere/at/all"',
    }.items():
        reply = client.get(path)
        assert reply.status == 404
        assert reply.error["message"].endswith(hint), reply
    reply = client.get("/v1/completions")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert reply.error["type"] == "invalid_request_error"


def test_scores_refuse_what_they_cannot_score(client: Client) -> None:
    for fields, param, message in (
        ({}, "prompt", "send prompt"),
        ({"context": "a"}, "continuations", "send prompt"),
        ({"continuations": ["a"]}, "context", "send prompt"),
        ({"prompt": "a", "context": "b"}, "prompt", "excludes"),
        ({"context": "a", "continuations": []}, "continuations", "not empty"),
        ({"context": "a", "continuations": "b"}, "continuations", '"b" (string)'),
        ({"context": "a", "continuations": ["x", ""]}, "continuations", "[1] must not be empty"),
        ({"context": "a", "continuations": ["b"]}, "continuations", "[0] adds no token to context"),
        ({"context": "a", "continuations": [[1]]}, "continuations", "[0] must be ids if"),
        ({"context": [1], "continuations": [1]}, "continuations", "[0] is 1 (number)"),
        (
            {"context": [1], "continuations": [[1], [_V]]},
            "continuations",
            f"[1] has the token id {_V}",
        ),
        (
            {"context": [1], "continuations": [[1] * CONTEXT]},
            "continuations",
            "behind 1 of context",
        ),
        ({"prompt": [1] * (CONTEXT + 1)}, "prompt", "of 33 tokens exceeds the 32 tokens"),
        ({"prompt": "a", "top": 3}, "top", "unknown"),
    ):
        reply = client.post("/v1/score", model="tiny", **fields)
        assert (reply.status, reply.error["param"]) == (400, param), (fields, reply)
        assert message in reply.error["message"], (fields, reply)


def test_errors_are_ascii_whatever_they_quote(client: Client) -> None:
    reply = client.post("/v1/completions", **{"model": "\u2028\U0001f600"})
    assert reply.status == 404
    assert reply.body.isascii()
    json.loads(reply.body)
