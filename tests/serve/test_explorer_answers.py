"""Tests the explorer's card, comparisons, training steps and lessons, and all descriptions."""

from __future__ import annotations

import json
import re
from typing import Any

import jax
import numpy as np
import pytest

from gpt2_jax.interpret.comparison import compare
from gpt2_jax.serve import explorer as explorer_lib
from gpt2_jax.serve.explorer import API
from gpt2_jax.serve.lesson import lesson
from tests.serve.serving import EOT, Client, tiny_model
from tests.serve.test_description import check

_TEXT = "xyz ab"
_GONE = "0" * 32


@pytest.fixture(scope="module")
def run(server: Client) -> dict[str, Any]:
    """The run of one text without changes."""
    return server.explore(text=_TEXT)


def test_the_card_sums_up_the_parameters(client: Client) -> None:
    card = client.get("/explore/v1/card?model=tiny").json
    counted = sum(leaf.size for leaf in jax.tree.leaves(tiny_model().params))
    # The table has rows that only pad it.
    padding = (-(EOT + 1) % 16) * 32
    assert card["parameters"] == sum(part["count"] for part in card["parts"]) == counted - padding
    assert client.get("/explore/v1/card?model=none").error["param"] == "model"


def test_runs_are_compared(client: Client, run: dict[str, Any]) -> None:
    other = client.explore(text=_TEXT, interventions={"heads": [[0, 0, 0]]})["run"]
    found = client.post("/explore/v1/compare", a=run["run"], b=other).json
    a, b = (client.explorer.insights.find(name).inspection.run for name in (run["run"], other))
    assert found == compare(a, b)
    assert max(client.post("/explore/v1/compare", a=other, b=other).json["kl"]) == 0
    third = client.explore(text="another")["run"]
    for fields, param, status in (
        ({"a": run["run"], "b": third}, "b", 400),
        ({"a": _GONE, "b": third}, "a", 410),
        ({"a": third, "b": _GONE}, "b", 410),
        ({"a": third}, "b", 400),
        ({"a": 1, "b": third}, "a", 400),
        ({"a": "A" * 32, "b": third}, "a", 400),
    ):
        reply = client.post("/explore/v1/compare", **fields)
        assert (reply.status, reply.error["param"]) == (status, param), reply


def test_a_training_step_changes_nothing_in_the_server(client: Client, run: dict[str, Any]) -> None:
    logits = client.array(run["run"], "logits")
    step = client.post("/explore/v1/train_step", text=_TEXT, learning_rate=0.01).json
    assert len(step["predictions"]) == len(run["tokens"]) - 1
    assert step["loss_after"] < step["loss"]
    losses = [-token["logprob"] for token in run["tokens"][1:]]
    np.testing.assert_allclose([each["loss"] for each in step["predictions"]], losses, rtol=1e-4)
    client.explorer.insights.runs.drop(lambda seen: True)
    assert client.explore(text=_TEXT) == run
    np.testing.assert_array_equal(client.array(run["run"], "logits"), logits)
    for fields, param in (
        ({"text": ""}, "text"),
        ({"tokens": [1]}, "tokens"),
        ({"text": _TEXT, "learning_rate": 0}, "learning_rate"),
        ({"text": _TEXT, "optimizer": "lion"}, "optimizer"),
        ({"text": _TEXT, "step": 3}, "step"),
    ):
        reply = client.post("/explore/v1/train_step", **fields)
        assert (reply.status, reply.error["param"]) == (400, param), reply


def test_a_lesson_of_a_run_is_one_file(client: Client, run: dict[str, Any]) -> None:
    path = f"/explore/v1/run/{run['run']}/lesson.html"
    reply = client.get(f"{path}?layer=0&head=1&query=2&key=1&language=zh")
    assert reply.status == 200, reply
    assert reply.headers["content-disposition"] == 'attachment; filename="lesson.html"'
    inspection = client.explorer.insights.find(run["run"]).inspection
    state = {"model": "tiny", "step": 0, "layer": 0, "head": 1, "query": 2, "key": 1}
    assert reply.body == lesson(inspection, state, "zh")
    for query, param in (
        ("layer=1", "layer"),
        ("head=x", "head"),
        ("query=99", "query"),
        ("key=-1", "key"),
        ("language=xx", "language"),
    ):
        reply = client.get(f"{path}?{query}")
        assert (reply.status, reply.error["param"]) == (400, param), reply
    assert client.get(f"/explore/v1/run/{_GONE}/lesson.html").status == 410


def test_a_lesson_lacks_what_has_no_meaning_behind_the_stream_of_another_text(
    client: Client, run: dict[str, Any]
) -> None:
    at = len(run["tokens"]) - 1
    for position in (0, at):  # the first attribution that is tried, and a later one
        source = {"run": run["run"], "position": 1}
        swap = {"site": "resid_post", "layer": 0, "position": position, "from": source}
        swapped = client.explore(text=_TEXT, interventions={"swaps": [swap]})["run"]
        reply = client.get(f"/explore/v1/run/{swapped}/lesson.html")
        assert reply.status == 200, reply
        held = set(re.findall(rb'"attribution/([0-9]+)/', reply.body))
        assert held == {b"%d" % t for t in range(at + 1) if t != position}


def test_answers_are_as_described(client: Client, run: dict[str, Any]) -> None:
    other = client.explore(tokens=[1, 2])["run"]
    paths = client.get("/openapi.json").json["paths"]
    posts = {
        "run": [{"text": "ab"}, {}],
        "compare": [{"a": run["run"], "b": run["run"]}, {"a": run["run"], "b": other}],
        "train_step": [{"text": "ab cd"}],
    }
    replies = [
        (name, client.post(f"{API}/{name}", **body)) for name in posts for body in posts[name]
    ]
    replies += [(name, client.get(f"{API}/{name}")) for name in ("models", "steps", "engine")]
    replies += [(name, client.get(f"{API}/{name}")) for name in ("views", "card", "card?model=no")]
    for name, reply in replies:
        (operation,) = paths[f"{API}/{name.partition('?')[0]}"].values()
        answer = operation["responses"][str(reply.status)]["content"]["application/json"]
        check(reply.json, answer["schema"], name)


def test_numbers_that_are_not_finite_are_null() -> None:
    value = {"a": [1.5, float("nan")], "b": {"c": float("-inf")}, "d": "NaN"}
    assert json.loads(explorer_lib._to_json(value)) == {
        "a": [1.5, None],
        "b": {"c": None},
        "d": "NaN",
    }
