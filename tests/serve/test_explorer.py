"""Tests the explorer's requests against the Python API, and what they refuse."""

from __future__ import annotations

import dataclasses
import gzip
import re
from typing import Any

import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.serve.runs import RUN_ID
from tests.serve.serving import AB, CONTEXT, EOT, Client, tiny_model

_TEXT = "xyz ab"
_GONE = "0" * 32


@pytest.fixture(scope="module")
def run(server: Client) -> dict[str, Any]:
    """The run of one text without changes."""
    return server.explore(text=_TEXT)


def test_a_run_is_named_by_what_is_asked_for_and_not_by_how(
    client: Client, run: dict[str, Any]
) -> None:
    assert RUN_ID.fullmatch(run["run"])
    ids = [token["id"] for token in run["tokens"]]
    assert (run["model"], run["step"], ids[-1]) == ("tiny", 0, AB)
    for same in (
        {"text": _TEXT},
        {"tokens": ids},
        {"text": _TEXT, "model": "tiny", "step": 0},
        {"text": _TEXT, "interventions": {}},
        {"text": _TEXT, "interventions": {"heads": [], "unmasked": None}},
    ):
        assert client.explore(**same) == run
    changes = [
        {"heads": [[0, 1, 0.0], [0, 2, 2]]},
        {"heads": [[0, 1, 0.0]]},
        {"mlps": [[0, 0]]},
        {"neurons": [[0, 3, 0]]},
        {"unmasked": [0]},
    ]
    names = {client.explore(text=_TEXT, interventions=change)["run"] for change in changes}
    assert len(names | {run["run"]}) == 6
    turned = {"heads": [[0, 2, 2.0], [0, 1, 0]]}
    assert client.explore(text=_TEXT, interventions=turned)["run"] in names


def test_every_view_is_that_of_the_python_api(client: Client, run: dict[str, Any]) -> None:
    inspection = LanguageModel(tiny_model()).inspect(_TEXT)
    summary = inspection.summary()
    assert {key: run[key] for key in summary} == summary
    listed = client.get("/explore/v1/views").json
    assert listed == inspection.views()
    for view in listed:
        # One layer, but several heads, positions, neurons, rows and ids.
        address = re.sub(r"\{(\w+)\}", lambda part: "0" if part[1] == "l" else "1", view["address"])
        array = client.array(run["run"], address)
        assert array.dtype == view["dtype"], address
        np.testing.assert_array_equal(array, inspection[address], err_msg=address)


def test_a_model_without_a_last_norm_lists_no_view_of_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = client.models.default
    shape = dataclasses.replace(served.config.model, norm_position="post")
    config = dataclasses.replace(served.config, model=shape)
    post = dataclasses.replace(served, name="post", config=config)
    monkeypatch.setitem(client.models._named, "post", post)
    listed = {
        model: {view["address"] for view in client.get(f"/explore/v1/views?model={model}").json}
        for model in ("tiny", "post")
    }
    assert listed["tiny"] - listed["post"] == {"ln/f/{t}", "gain/f"}
    assert client.get("/explore/v1/views?model=none").status == 404


def test_interventions_change_the_logits_and_factors_of_one_do_not(
    client: Client, run: dict[str, Any]
) -> None:
    logits = client.array(run["run"], "logits")
    nothing = {"heads": [[0, 1, 1]], "mlps": [[0, 1]], "neurons": [[0, 3, 1]]}
    same = client.explore(text=_TEXT, interventions=nothing)["run"]
    np.testing.assert_array_equal(client.array(same, "logits"), logits)
    for change in ({"heads": [[0, 1, 0]]}, {"mlps": [[0, 0]]}, {"unmasked": [0]}):
        other = client.explore(text=_TEXT, interventions=change)["run"]
        assert np.abs(client.array(other, "logits/0") - client.array(run["run"], "logits/0")).max()


@pytest.mark.parametrize("site", ["resid_post", "mlp", "z"])
def test_activations_of_another_run_can_be_put_in(
    client: Client, run: dict[str, Any], site: str
) -> None:
    other = client.explore(text="ab qr")
    swap = {"site": site, "layer": 0, "head": 1, "position": 2}
    swap["from"] = {"run": other["run"], "position": 1}
    swapped = client.explore(text=_TEXT, interventions={"swaps": [swap]})["run"]
    assert np.abs(client.array(swapped, "logits/2") - client.array(run["run"], "logits/2")).max()
    np.testing.assert_array_equal(
        client.array(swapped, "logits/1"), client.array(run["run"], "logits/1")
    )
    if site == "resid_post":  # of the last layer: what is read out is the other text's
        np.testing.assert_allclose(
            client.array(swapped, "logits/2"), client.array(other["run"], "logits/1"), atol=1e-5
        )


def test_arrays_never_change_and_are_kept_by_browsers(client: Client, run: dict[str, Any]) -> None:
    path = f"/explore/v1/run/{run['run']}/logits.npy"
    reply = client.get(path)
    assert reply.headers["cache-control"] == "private, max-age=31536000, immutable"
    known = client.send("GET", path, If_None_Match=reply.headers["etag"])
    assert (known.status, known.body) == (304, b"")
    packed = client.send("GET", path, Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == reply.body
    assert len(packed.body) < len(reply.body)
    assert client.get(path).body == reply.body


def test_a_run_that_is_gone_can_be_asked_for_again(client: Client, run: dict[str, Any]) -> None:
    kept = client.explorer.insights.runs
    logits = client.array(run["run"], "logits")
    kept.drop(lambda seen: seen.id == run["run"])
    reply = client.get(f"/explore/v1/run/{run['run']}/logits.npy")
    assert (reply.status, reply.error["code"]) == (410, "run_gone")
    assert reply.headers["cache-control"] == "no-store"  # it may be there again
    assert client.explore(text=_TEXT) == run
    np.testing.assert_array_equal(client.array(run["run"], "logits"), logits)
    for path, status in (
        (f"/explore/v1/run/{_GONE}/logits.npy", 410),
        ("/explore/v1/run/xyz/logits.npy", 404),
        (f"/explore/v1/run/{run['run']}/nothing.npy", 404),
        (f"/explore/v1/run/{run['run']}/head/0/99.npy", 404),
        (f"/explore/v1/run/{run['run']}/logits/99.npy", 404),
        (f"/explore/v1/run/{run['run']}/logits/-1.npy", 404),
        (f"/explore/v1/run/{run['run']}/logits", 404),
    ):
        assert client.get(path).status == status, path


def _swap(**changes: Any) -> dict[str, Any]:
    swap = {"site": "z", "layer": 0, "position": 0, "from": {"run": _GONE, "position": 0}}
    return {"interventions": {"swaps": [swap | changes]}}


@pytest.mark.parametrize(
    "fields, param, status",
    [
        ({}, "text", 400),
        ({"text": "a", "tokens": [1]}, "tokens", 400),
        ({"text": 1}, "text", 400),
        ({"text": "x" * 10**5}, "text", 400),
        ({"text": "x" * (CONTEXT + 1)}, "text", 400),
        ({"text": "\ud800"}, "text", 400),
        ({"tokens": []}, "tokens", 400),
        ({"tokens": [0] * (CONTEXT + 1)}, "tokens", 400),
        ({"tokens": [9999]}, "tokens", 400),
        ({"tokens": [2**70]}, "tokens", 400),
        ({"tokens": [-1]}, "tokens", 400),
        ({"tokens": [True]}, "tokens", 400),
        ({"text": "a", "model": "none"}, "model", 404),
        ({"text": "a", "model": ""}, "model", 404),
        ({"text": "a", "step": 7}, "step", 400),
        ({"text": "a", "step": -1}, "step", 400),
        ({"text": "a", "step": 1.0}, "step", 400),
        ({"text": "a", "txet": "b"}, "txet", 400),
        *(
            ({"text": "ab c", "interventions": value}, "interventions", 400)
            for value in (
                [],
                {"head": []},
                {"heads": {}},
                {"heads": [[0, 1]]},
                {"heads": [[0, 99, 1]]},
                {"heads": [[9, 0, 1]]},
                {"heads": [[0, 0, 1e9]]},
                {"heads": [[0, 0, "1"]]},
                {"heads": [[0, 0, 1], [0, 0, 2]]},
                {"heads": [[0, 0, 1]] * 5000},
                {"mlps": [[5, 1]]},
                {"neurons": [[0, 9999, 1]]},
                {"unmasked": [1]},
                {"unmasked": [[0]]},
                {"swaps": [{}]},
            )
        ),
        ({"text": "a", **_swap()}, "interventions", 410),
        ({"text": "a", **_swap(site="resid_pre")}, "interventions", 400),
        ({"text": "a", **_swap(**{"from": {"run": "x", "position": 0}})}, "interventions", 400),
    ],
)
def test_bad_requests_name_the_field(
    client: Client, fields: dict[str, Any], param: str, status: int
) -> None:
    reply = client.post("/explore/v1/run", **fields)
    assert (reply.status, reply.error["param"]) == (status, param), reply
    assert len(reply.error["message"]) < 400


def test_a_refused_entry_is_named_and_what_is_wrong_with_it(client: Client) -> None:
    for rows, said in (
        ([[0, 1, 1], [0, 0, 1000]], "the factor of heads[1] must be from -100 to 100, not 1000"),
        ([[0, "1", 1]], "the head of heads[0] must be an integer, not"),
        ([[0, 1]], "heads[0] must be a list of layer, head, factor"),
        ([[0, 1, 1], [0, 99, 1]], "heads[1]: head must be between 0 and"),
        ([[0, 1, 1], [0, 1, 2]], "heads[1] names [0, 1] again: give it one factor"),
    ):
        error = client.post("/explore/v1/run", text="ab", interventions={"heads": rows}).error
        assert error["message"].startswith(f"interventions: {said}"), error


def test_a_text_without_room_is_told_with_its_numbers(client: Client) -> None:
    for fields in ({"text": "x" * 9 * CONTEXT}, {"tokens": [0] * (CONTEXT + 1)}):
        error = client.post("/explore/v1/run", **fields).error
        (count,) = map(len, fields.values())
        said = f"the text has {count} tokens, and the model takes at most {CONTEXT} here"
        assert error["message"].startswith(said)
        assert error["code"] == "context_length_exceeded"
        assert error["counts"] == {"tokens": count, "most": CONTEXT}
    # So long a text is not even encoded.
    error = client.post("/explore/v1/run", text="x" * 10**5).error
    assert error["message"] == f"text exceeds the {CONTEXT} tokens that can be shown"
    assert error["code"] == "context_length_exceeded" and "counts" not in error


def test_swaps_beyond_either_text_are_refused(client: Client, run: dict[str, Any]) -> None:
    for changes, other in (
        ({"position": 99}, {"position": 0}),
        ({"head": 99}, {"position": 0}),
        ({"layer": 99}, {"position": 0}),
        ({}, {"position": 99}),
    ):
        fields = _swap(**changes, **{"from": {"run": run["run"], **other}})
        reply = client.post("/explore/v1/run", text="a", **fields)
        assert (reply.status, reply.error["param"]) == (400, "interventions"), reply
        beyond = {"position": 99, "tokens": 1} if changes.get("position") else None
        assert reply.error.get("counts") == beyond


def test_texts_of_one_token_and_of_the_whole_context_are_shown(client: Client) -> None:
    assert len(client.explore(text="")["tokens"]) == 1
    for count in (1, CONTEXT):
        whole = client.explore(tokens=[7] * count)
        assert len(whole["tokens"]) == count
        assert client.array(whole["run"], "norms").shape == (3, count)


def test_models_and_their_steps_are_listed(client: Client) -> None:
    (entry,) = client.get("/explore/v1/models").json
    assert entry == {
        "id": "tiny",
        "takes_text": True,
        "tokenizer": "bpe",
        "ends": [EOT],
        "max_tokens": CONTEXT,
        "step": 0,
        "steps": [],
        "path": "/nowhere",
        "ema": False,
    }
    steps = client.get("/explore/v1/steps?model=tiny").json
    assert steps == {"model": "tiny", "step": 0, "steps": [], "loaded": [0]}
    for path in ("steps", "engine"):
        reply = client.get(f"/explore/v1/{path}?model=none")
        assert (reply.status, reply.error["param"]) == (404, "model")
