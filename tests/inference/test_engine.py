"""Tests the engine: what a text becomes depends on nothing that is generated with it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.generate import decode_params
from gpt2_jax.inference.requests import Choice, Request
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import build_decoder, build_model
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.engine_runs import finish, ids, run, said
from tests.inference.tiny import noisy_params, tiny_config

_CONTEXT, _SLOTS = 200, 3
_CONFIG = tiny_config(context_length=_CONTEXT)
_MODEL = build_decoder(_CONFIG.model, _CONFIG.compute)
_BYTES = ByteTokenizer()
_GREEDY = SamplingOptions(temperature=0.0)
_EOT = 256


@pytest.fixture(scope="module")
def scanned() -> Any:
    return noisy_params(_CONFIG)


@pytest.fixture(scope="module")
def params(scanned: Any) -> dict[str, Any]:
    return decode_params(_MODEL, scanned)


@pytest.fixture
def engine(params: Any) -> Engine:
    return Engine(_MODEL, params, _BYTES, num_slots=_SLOTS)


def _logits(scanned: Any, text: Sequence[int]) -> np.ndarray:
    """Logits [T, V] of a text by the model of training: scanned, without a cache."""
    padded = np.zeros((1, _CONTEXT), np.int32)
    padded[0, : len(text)] = text
    return np.asarray(_forward()(scanned, padded))[0, : len(text)]


@functools.cache
def _forward() -> Any:
    model = build_model(_CONFIG.model, _CONFIG.compute)
    return jax.jit(lambda p, tokens: model.apply({"params": p}, tokens, method="logits")[0])


# Prompts of one token, of one chunk and of two, with texts that go through two blocks of attention.
_MIXED = [
    Request(ids(0, 1), 40, SamplingOptions(0.8, top_k=50), seed=1, logprobs=True),
    Request(ids(1, 140), 30, SamplingOptions(top_p=0.9, min_p=0.01), seed=2),
    Request(ids(2, 5), 33, _GREEDY, logprobs=True),
    Request(ids(3, 9), 20, SamplingOptions(presence_penalty=1, frequency_penalty=0.5), seed=2**63),
    Request(
        ids(4, 12),
        36,
        SamplingOptions(0.7, repetition_penalty=1.5, no_repeat_ngram_size=2, logit_bias={9: 4.0}),
        seed=-7,
    ),
    Request(ids(5, 135), 17, seed=3, logprobs=True, prompt_logprobs=True),
]


def test_a_text_is_the_same_to_the_bit_alone_and_with_any_mates(params: Any) -> None:
    alone = [said(run(Engine(_MODEL, params, _BYTES, num_slots=_SLOTS), r)) for r in _MIXED]
    assert len({tuple(tokens) for tokens, *_ in alone}) == len(_MIXED)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        engine = Engine(_MODEL, params, _BYTES, num_slots=_SLOTS, fill_first=seed == 4)
        choices: dict[int, Choice] = {}
        for number in rng.permutation(len(_MIXED)).tolist():
            (choices[number],) = engine.submit(_MIXED[number])
            for _ in range(rng.integers(0, 4)):
                engine.step()
        finish(engine, *choices.values())
        for number, expected in enumerate(alone):
            assert said(choices[number]) == expected, (seed, number)


def test_greedy_tokens_are_the_argmax_of_full_uncached_forwards(
    scanned: Any, engine: Engine
) -> None:
    for prompt in (ids(6, 1), ids(6, 140), ids(7, 129)):
        choice = run(engine, Request(prompt, 40, _GREEDY))
        best = _logits(scanned, [*prompt, *choice.tokens]).argmax(-1)
        assert best[len(prompt) - 1 : -1].tolist() == choice.tokens


def test_log_probabilities_are_the_models_own(scanned: Any, engine: Engine) -> None:
    options = SamplingOptions(0.5, top_p=0.2, logit_bias={7: 3, 8: -100}, presence_penalty=2)
    prompt = ids(8, 137)
    request = Request(prompt, 20, options, logprobs=True, prompt_logprobs=True)
    choice = run(engine, request)
    text = [*prompt, *choice.tokens]
    own = np.asarray(jax.nn.log_softmax(jnp.asarray(_logits(scanned, text))))
    assert choice.prompt_logprobs[0] is None
    found = [entry for entry in (*choice.prompt_logprobs, *choice.logprobs) if entry]
    assert len(found) == len(text) - 1
    for row, token, (logprob, top) in zip(own, text[1:], found, strict=False):
        assert logprob == pytest.approx(row[token], abs=2e-5)
        values = dict(top)
        assert len(top) == len(values) == 20
        assert [value for _, value in top] == sorted(values.values(), reverse=True)
        np.testing.assert_allclose([row[i] for i in values], [*values.values()], atol=2e-5)
        if token in values:
            assert values[token] == logprob


def test_a_prompt_can_be_scored_without_drawing(engine: Engine) -> None:
    for length in (1, 20):
        prompt = ids(9, length)
        request = Request(prompt, 0, prompt_logprobs=True, num_choices=2)
        choices = engine.submit(request)
        finish(engine, *choices)
        full = run(engine, Request(prompt, 3, prompt_logprobs=True))
        for choice in choices:
            assert choice.tokens == []
            assert choice.prompt_logprobs == full.prompt_logprobs
            assert choice.stream.sample is not None
            assert choice.stream.sample.finish_reason == "length"


def test_choices_of_one_prompt_are_numbered_and_may_be_more_than_the_slots(engine: Engine) -> None:
    choices = engine.submit(Request(ids(10, 8), 20, seed=4, num_choices=_SLOTS + 4))
    finish(engine, *choices)
    assert len({tuple(choice.tokens) for choice in choices}) == _SLOTS + 4
    for number in (0, 2, _SLOTS + 3):
        single = run(engine, Request(ids(10, 8), 20, seed=4, first_choice=number))
        assert single.tokens == choices[number].tokens


def test_cancelled_texts_leave_at_once_and_change_nothing_for_the_others(engine: Engine) -> None:
    kept = Request(ids(11, 6), 60, seed=5)
    expected = said(run(engine, kept))
    (stays,) = engine.submit(kept)
    engine.step()
    first, second = engine.submit(Request(ids(12, 5), 100, num_choices=2))
    engine.step()
    engine.step()
    assert engine.num_running == 3
    (queued,) = engine.submit(Request(ids(13, 140), 50))
    engine.step()
    assert engine.num_waiting == 1
    engine.cancel(queued)
    engine.cancel(queued)
    assert engine.num_waiting == 0
    engine.cancel(first)  # while it decodes
    assert engine.num_running == 2
    (read,) = engine.submit(Request(ids(14, 140), 50))
    engine.step()  # its first chunk of two
    assert engine.num_waiting == 1
    engine.cancel(read)
    (after,) = engine.submit(Request(ids(15, 3), 10, seed=6))
    engine.step()
    assert engine.num_running == 3
    engine.cancel(second)
    finish(engine, stays, after)
    assert said(stays) == expected
    assert not any(choice.stream.sample for choice in (queued, first, read, second))
    assert said(after) == said(run(engine, Request(ids(15, 3), 10, seed=6)))
    assert engine.num_running == engine.num_waiting == 0


def test_a_stop_string_cuts_tokens_and_log_probabilities_where_it_ends(engine: Engine) -> None:
    request = Request(ids(16, 4), 40, SamplingOptions(logit_bias=_PRINTABLE), logprobs=True)
    whole = run(engine, request)
    text = bytes(whole.tokens).decode()
    stop = text[19:22]
    at = text.index(stop)
    choice = run(engine, dataclasses.replace(request, stop=[stop]))
    assert choice.stream.sample is not None
    assert choice.stream.sample.finish_reason == "stop"
    assert choice.stream.sample.text == choice.unread == text[:at]
    assert choice.stream.sample.tokens == choice.tokens == whole.tokens[: at + 3]
    assert choice.logprobs == whole.logprobs[: at + 3]


_PRINTABLE = {i: 100.0 for i in range(32, 127)}


def test_end_of_text_and_stop_ids_end_a_text_unless_ignored(engine: Engine) -> None:
    def ended(**options: Any) -> tuple[list[int], str]:
        wanted = SamplingOptions(temperature=0, **options)
        sample = run(engine, Request([65], 6, wanted)).stream.sample
        assert sample is not None
        return sample.tokens, sample.finish_reason

    assert ended(logit_bias={_EOT: 100}) == ([_EOT], "stop")
    assert ended(logit_bias={_EOT: 100}, ignore_eos=True) == ([_EOT] * 6, "length")
    assert ended(logit_bias={70: 100}, stop_token_ids=[70]) == ([70], "stop")
    both = {"logit_bias": {70: 100}, "stop_token_ids": [71, 70], "ignore_eos": True}
    assert ended(**both) == ([70], "stop")


def test_requests_that_do_not_fit_are_refused_by_name(engine: Engine) -> None:
    for request, message in (
        (Request([], 1), "the prompt has no token"),
        (Request([257], 1), "token id 257 of the prompt is not in the vocabulary"),
        (Request([-1], 1), "token id -1 of the prompt"),
        (Request([1], 1, SamplingOptions(stop_token_ids=[300])), "300 of stop_token_ids"),
        (Request([1], 1, SamplingOptions(logit_bias={300: 1})), "300 of logit_bias"),
        (Request([1], 0), "max_new_tokens must be at least 1, not 0"),
        (Request([1], 1, num_choices=0), "num_choices must be at least 1, not 0"),
        (Request([1] * 150, 51), "prompt of 150 tokens + max_new_tokens=51 exceed 200 tokens"),
        (Request([1] * 200, 9, slide=True), "a prompt of 200 tokens leaves no room in 200"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            engine.submit(request)
    assert not engine.busy
    with pytest.raises(UserError, match="max_length=201 exceeds"):
        Engine(_MODEL, {}, _BYTES, num_slots=1, max_length=201)


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Lists what is compiled."""
    names: list[str] = []

    def listen(event: str, duration: float, **facts: Any) -> None:
        if event.endswith("backend_compile_duration"):
            names.append(str(facts.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def test_nothing_is_compiled_after_the_first_run(params: Any, compilations: list[str]) -> None:
    def everything(seed: int) -> None:
        engine = Engine(_MODEL, params, _BYTES, num_slots=_SLOTS)
        requests = [
            Request(ids(seed, length), 20 + seed, options, seed=seed, logprobs=logprobs)
            for length in (3, 130)
            for options in (_GREEDY, SamplingOptions(top_k=seed, logit_bias={seed: 1.0}))
            for logprobs in (False, True)
        ]
        for request in (*requests, Request(ids(seed, 9), 9, num_choices=seed)):
            engine.submit(request)
        while engine.busy:
            engine.step()

    everything(2)
    compilations.clear()
    jnp.arange(12345)
    assert compilations, "compilations are not counted"
    compilations.clear()
    for seed in (3, 4):
        everything(seed)
    assert not compilations


def test_a_closed_engine_holds_no_memory_even_if_an_error_refers_to_its_arrays(
    params: Any, engine: Engine
) -> None:
    engine.submit(Request(ids(0, 3), 5))
    engine.submit(Request(ids(1, 140), 5))
    for _ in range(2):
        engine.step()
    arrays = jax.tree.leaves((engine._slots, [p.cache for p in engine._reader.prefills]))
    assert engine.busy and not any(array.is_deleted() for array in arrays)
    engine.close()
    engine.close()
    assert all(array.is_deleted() for array in arrays)
    assert not engine.busy
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(params))


def test_only_as_many_alternatives_are_kept_as_are_asked_for(engine: Engine) -> None:
    base = Request(ids(2, 6), 4, _GREEDY, logprobs=True, prompt_logprobs=True)
    full = run(engine, base)
    for count in (0, 1, 7):
        few = run(engine, dataclasses.replace(base, num_alternatives=count))
        for all_of_them in (full.prompt_logprobs[1:], full.logprobs):
            kept = few.logprobs if all_of_them is full.logprobs else few.prompt_logprobs[1:]
            assert kept == [entry and (entry[0], entry[1][:count]) for entry in all_of_them]
