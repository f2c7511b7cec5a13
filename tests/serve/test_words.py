"""Tests that the explorer names tokens by their ids."""

from __future__ import annotations

import pytest

from tests.serve.serving import AB, EMOJI_1, Client

_PATH = "/explore/v1/words"


def test_tokens_are_named_as_summaries_name_them(client: Client) -> None:
    reply = client.get(f"{_PATH}?model=tiny&ids={AB},{EMOJI_1},10")
    assert reply.json == [[AB, "ab"], [EMOJI_1, "\\xf0\\x9f"], [10, "\n"]]
    assert client.get(f"{_PATH}?ids={AB}").json == [[AB, "ab"]]
    next_ids = client.explore(text="ab")["next"]
    ids = ",".join(str(token) for token, _, _ in next_ids)
    assert client.get(f"{_PATH}?ids={ids}").json == [[t, text] for t, text, _ in next_ids]


@pytest.mark.parametrize("ids", ["", "x", "1,", "-1", "1,,2", "9999", "9" * 12, "1," * 300 + "1"])
def test_other_ids_are_refused(client: Client, ids: str) -> None:
    reply = client.get(f"{_PATH}?ids={ids}")
    assert (reply.status, reply.error["param"]) == (400, "ids")


def test_an_unknown_model_is_refused(client: Client) -> None:
    assert client.get(f"{_PATH}?model=no&ids=1").status == 404
