"""Tests what a completion holds, streamed and as a whole; cases are those of known faults."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.serve import answer as answer_lib
from gpt2_jax.serve import scores
from gpt2_jax.tokenizers.ids import IdsTokenizer
from tests.serve.serving import (
    AB,
    CD,
    CDE_F,
    CONTEXT,
    EMOJI_1,
    EMOJI_2,
    EOT,
    PIECES,
    SLOTS,
    Client,
    joined,
    saying,
    serving,
    tiny_model,
)

_SMILE = "\U0001f600"


def _both(client: Client, **fields: Any) -> list[dict[str, Any]]:
    """Returns the choices of an answer, which a stream must give as well."""
    plain = client.complete(seed=5, **fields)["choices"]
    streamed = joined(client.stream(seed=5, **fields))
    assert [streamed[index] for index in range(len(plain))] == plain
    return plain


def test_an_answer_has_all_that_clients_read(client: Client) -> None:
    answer = client.complete("ab", max_tokens=3, seed=2)
    (choice,) = answer["choices"]
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tiny"
    assert answer["created"] > 1e9
    assert answer["seed"] == 2
    assert choice["index"] == 0
    assert choice["logprobs"] is None
    assert choice["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    assert "slots4-length32-float32-cpu-jax" in answer["system_fingerprint"]


def test_a_returned_seed_gives_the_answer_again(client: Client) -> None:
    first = client.complete(max_tokens=20, logprobs=3)
    again = client.complete(max_tokens=20, logprobs=3, seed=first["seed"])
    assert again["choices"] == first["choices"]


def test_a_stop_string_over_several_tokens_never_shows(client: Client) -> None:
    """Case 1."""
    fields = saying(b"vwxyz") | {"stop": ["wxy"]}
    (choice,) = _both(client, **fields)
    assert (choice["text"], choice["finish_reason"]) == ("v", "stop")
    (choice,) = _both(client, **saying(b"vwxyz"), stop=["wxq", "zz"])
    assert (choice["text"], choice["finish_reason"]) == ("vwxyz", "length")


def test_a_stop_string_inside_of_a_token_cuts_exactly_before_it(client: Client) -> None:
    """Case 2."""
    for stop, text in (("e f", "abcd"), ("cde", "ab"), ("de ", "abc"), (" ", "abcde")):
        (choice,) = _both(client, **saying(AB, CDE_F, ord("x")), stop=stop)
        assert (choice["text"], choice["finish_reason"]) == (text, "stop"), stop
    answer = client.complete(**saying(AB, CDE_F, ord("x")), stop="de ", return_token_ids=True)
    assert answer["choices"][0]["token_ids"] == [AB, CDE_F]
    assert answer["usage"]["completion_tokens"] == 2


def test_a_character_of_several_tokens_comes_whole(client: Client) -> None:
    """Case 3."""
    for tokens in ((_SMILE.encode(),), (EMOJI_1, EMOJI_2)):
        fields = saying(*tokens, b"hi")
        assert _both(client, **fields)[0]["text"] == _SMILE + "hi"
        texts = [chunk["choices"][0]["text"] for chunk in client.stream(**fields)]
        assert "".join(texts) == _SMILE + "hi"
        assert not [text for text in texts if "\ufffd" in text]
    cut = client.complete(**saying(_SMILE.encode()[:3]))
    assert cut["choices"][0]["text"] == "\ufffd"


def test_line_ends_of_unicode_break_no_event(client: Client) -> None:
    """Case 4."""
    text = "a\u2028\x85\n\r"
    assert _both(client, **saying(text.encode()))[0]["text"] == text


@pytest.mark.parametrize("echo", [False, True])
def test_log_probabilities_of_a_stream_are_those_of_the_whole(client: Client, echo: bool) -> None:
    """Case 5."""
    fields = saying(AB, b"xyz", CDE_F, b"w") | {"prompt": "op\u00e9q"}
    base = {"echo": echo, "logprobs": 2}
    (choice,) = _both(client, **fields | base)
    listed = choice["logprobs"]
    prompt = ["o", "p", "bytes:\\xc3", "bytes:\\xa9", "q"] if echo else []
    assert listed["tokens"] == [*prompt, "ab", "x", "y", "z", "cde f", "w"]
    offsets = [0, 1, 2, 2, 3] if echo else []
    assert listed["text_offset"] == [*offsets, 4, 6, 7, 8, 9, 14]
    assert choice["text"] == ("op\u00e9q" if echo else "") + "abxyzcde fw"
    if echo:
        assert listed["token_logprobs"][0] is listed["top_logprobs"][0] is None
    # A stop whose beginning is held back, and one inside of a token.
    for stop, count in ((["yzcd"], 2), (["e f"], 5), (["yzq"], 6)):
        (choice,) = _both(client, **fields | base, stop=stop)
        assert choice["logprobs"]["tokens"] == listed["tokens"][: len(prompt) + count], stop
        assert choice["logprobs"]["text_offset"] == listed["text_offset"][: len(prompt) + count]


def test_candidates_that_are_no_text_keep_their_names_and_values(client: Client) -> None:
    """Case 6."""
    wide, narrow = (
        client.complete("ab", max_tokens=20, seed=3, logprobs=n)["choices"][0]["logprobs"]
        for n in (20, 5)
    )
    seen = set()
    for token, value, top, more in zip(
        narrow["tokens"],
        narrow["token_logprobs"],
        narrow["top_logprobs"],
        wide["top_logprobs"],
        strict=True,
    ):
        assert len(top) == (5 if sorted(more, key=more.get)[-5:].count(token) else 6)
        assert len(more) in (20, 21)
        assert top.items() <= more.items()
        assert top[token] == value
        seen |= {name for name in top if name.startswith("bytes:")}
    assert len(seen) > 5


def test_logprobs_zero_lists_the_chosen_tokens_and_null_none(client: Client) -> None:
    """Case 7."""
    listed = client.complete(max_tokens=4, logprobs=0)["choices"][0]["logprobs"]
    assert [len(listed[key]) for key in listed] == [4, 4, 4, 4]
    for token, value, top in zip(
        listed["tokens"], listed["token_logprobs"], listed["top_logprobs"], strict=True
    ):
        assert top == {token: value}
    assert client.complete(max_tokens=4)["choices"][0]["logprobs"] is None


def test_a_prompt_alone_is_scored_without_drawing(client: Client) -> None:
    """Case 8."""
    answer = client.complete("xyz", echo=True, max_tokens=0, logprobs=10)
    (choice,) = answer["choices"]
    assert choice["text"] == "xyz"
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"]["tokens"] == ["x", "y", "z"]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}
    assert client.complete("xyz", echo=True, max_tokens=0)["choices"][0]["text"] == "xyz"
    full = client.complete([7] * CONTEXT, echo=True, max_tokens=0, logprobs=0)
    assert len(full["choices"][0]["logprobs"]["tokens"]) == CONTEXT


def test_log_probabilities_are_those_of_score_whatever_is_drawn(client: Client) -> None:
    """Case 9."""
    options = {"temperature": 0.5, "top_p": 1e-4, "presence_penalty": 1, "logit_bias": {"65": 3}}
    answer = client.complete([1, 2, 3], max_tokens=12, logprobs=1, return_token_ids=True, **options)
    choice = answer["choices"][0]
    assert choice["prompt_token_ids"] == [1, 2, 3]
    reply = client.post(
        "/v1/score", model="tiny", context=[1, 2, 3], continuations=[choice["token_ids"]]
    )
    (score,) = reply.json["scores"]
    assert score["token_logprobs"] == pytest.approx(choice["logprobs"]["token_logprobs"], abs=1e-4)
    assert score["tokens"] == choice["logprobs"]["tokens"]
    assert score["logprob"] == pytest.approx(sum(score["token_logprobs"]))


def test_banned_tokens_leave_numbers_finite(client: Client) -> None:
    """Case 10."""
    banned = {str(token): -100 for token in range(256)}
    choice = client.complete(max_tokens=5, logprobs=20, logit_bias=banned)["choices"][0]
    assert {*choice["logprobs"]["tokens"]} <= {piece.decode("latin-1") for piece in PIECES} | {
        "bytes:\\xf0\\x9f",
        "bytes:\\x98\\x80",
    }
    assert all(
        -9999 <= value <= 0 for top in choice["logprobs"]["top_logprobs"] for value in top.values()
    )


def test_choices_are_numbered_prompt_by_prompt(client: Client) -> None:
    """Case 11."""
    choices = _both(client, prompt=["ab", "xy"], n=2, echo=True, max_tokens=6)
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"][:2] for choice in choices] == ["ab", "ab", "xy", "xy"]
    assert len({choice["text"] for choice in choices}) == 4


def test_the_last_chunk_sums_the_usage_of_all_choices(client: Client) -> None:
    """Case 12."""
    fields = {"n": 3, "max_tokens": 7, "ignore_eos": True}
    found = client.stream("xyz", stream_options={"include_usage": True}, **fields)
    assert all(chunk["usage"] is None for chunk in found[:-1])
    assert found[-1]["choices"] == []
    assert found[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 21, "total_tokens": 24}
    assert len({(chunk["id"], chunk["created"], chunk["seed"]) for chunk in found}) == 1
    assert all(len(chunk["choices"]) == 1 for chunk in found[:-1])
    plain = client.stream("xyz", **fields)
    assert all("usage" not in chunk for chunk in plain)
    ends = [c["choices"][0] for c in plain if c["choices"][0]["finish_reason"]]
    assert sorted(choice["index"] for choice in ends) == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 5, 20])
def test_as_many_tokens_come_as_are_asked_for(client: Client, count: int) -> None:
    """Case 13."""
    answer = client.complete(max_tokens=count, ignore_eos=True, logit_bias={str(EOT): 3})
    assert answer["usage"]["completion_tokens"] == count
    assert answer["choices"][0]["finish_reason"] == "length"


def test_an_end_of_text_ends_it_and_is_counted_but_not_listed(client: Client) -> None:
    fields = saying(b"xy", EOT, b"z") | {"logprobs": 1}
    (choice,) = _both(client, **fields)
    assert (choice["text"], choice["finish_reason"]) == ("xy", "stop")
    assert choice["logprobs"]["tokens"] == ["x", "y"]
    assert client.complete(**fields)["usage"]["completion_tokens"] == 3
    (choice,) = _both(client, **fields, stop_token_ids=[ord("y")])
    assert choice["text"] == "x"
    (choice,) = _both(client, **fields, ignore_eos=True)
    assert choice["text"] == "xy<|endoftext|>z"
    assert choice["logprobs"]["tokens"] == ["x", "y", "<|endoftext|>", "z"]


def test_an_empty_prompt_is_the_end_of_text(client: Client) -> None:
    expected = client.complete([EOT], seed=1)["choices"][0]["text"]
    for prompt in ("", None, [""]):
        answer = client.complete(prompt, seed=1)
        assert answer["choices"][0]["text"] == expected
        assert answer["usage"]["prompt_tokens"] == 1


def test_texts_can_go_on_beyond_the_context(client: Client) -> None:
    fields = {"max_tokens": 90, "context_overflow": "slide", "ignore_eos": True}
    choices = _both(client, prompt="abc", logprobs=0, **fields)
    assert len(choices[0]["logprobs"]["tokens"]) == 90
    status, param, message = client.refusal(max_tokens=90)
    assert (status, param) == (400, "max_tokens")
    assert "exceed the 32 tokens" in message


def test_token_ids_of_a_stream_are_all_of_them(client: Client) -> None:
    fields = {"max_tokens": 30, "return_token_ids": True, "seed": 4}
    whole = client.complete("xy", **fields)["choices"][0]
    found = [chunk["choices"][0] for chunk in client.stream("xy", **fields)]
    assert [*itertools.chain(*(c["token_ids"] for c in found))] == whole["token_ids"]
    assert found[0]["prompt_token_ids"] == whole["prompt_token_ids"] == [120, 121]


def test_a_chunk_never_names_text_twice(client: Client) -> None:
    found = client.stream(**saying(AB, CD, b"xyz"), logprobs=0)
    texts = ["".join(c["choices"][0]["logprobs"]["tokens"]) for c in found]
    assert "".join(texts) == "abcdxyz"


def test_an_answer_is_that_of_the_model_without_a_server_at_equal_slots(client: Client) -> None:
    """As the page on serving promises of `sample --slots`, also where the slots are shorter."""
    model = LanguageModel(tiny_model())
    answer = client.complete("ab", n=2, max_tokens=12, seed=3, return_token_ids=True)
    samples = model.generate("ab", num_samples=2, max_new_tokens=12, seed=3, num_slots=SLOTS)
    found = [(choice["text"], choice["token_ids"]) for choice in answer["choices"]]
    assert found == [(sample.text, sample.tokens) for sample in samples]
    prompts = ["xy", "ab"]
    answer = client.complete(prompts, n=2, max_tokens=12, seed=answer["seed"])
    many = model.generate_many(prompts, num_samples=2, max_new_tokens=12, seed=3, num_slots=SLOTS)
    assert [c["text"] for c in answer["choices"]] == [s.text for each in many for s in each]


@pytest.mark.slow
def test_a_model_of_ids_refuses_stop_strings_and_takes_stop_ids() -> None:
    """As `sample --stop` does: " 5" would also end a text at 57."""
    with serving(tiny_model(IdsTokenizer(64, "none was found"))) as client:
        fields = {"model": "tiny", "prompt": [1], "temperature": 0, "logit_bias": {"57": 100}}
        for stream in (False, True):
            refusal = client.refusal(**fields, stop=" 5", stream=stream)
            assert refusal[:2] == (400, "stop")
            assert "this one gives token ids (none was found): use stop_token_ids" in refusal[2]
        fields |= {"stop": [], "stop_token_ids": [57]}
        (choice,) = client.post("/v1/completions", **fields).json["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("", "stop")


def test_answers_are_not_built_where_others_would_wait_for_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities of long texts are megabytes, and the loop answers all clients."""
    threads = []

    def noted(function: Any) -> Any:
        def run(*arguments: Any) -> Any:
            threads.append(threading.current_thread())
            return function(*arguments)

        return run

    monkeypatch.setattr(answer_lib, "lists", noted(answer_lib.lists))
    monkeypatch.setattr(scores, "_scores", noted(scores._scores))
    client.complete("ab", n=2, max_tokens=2, logprobs=2)
    assert client.post("/v1/score", model="tiny", prompt="abc").status == 200
    assert len(threads) == 3
    pools = ("asyncio_", "uvloop_")  # of either loop; its own thread has another name
    assert all(thread.name.startswith(pools) for thread in threads), threads
