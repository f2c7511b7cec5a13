"""Tests texts that go on beyond the context, behind the last half of their tokens."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.generate import decode_params
from gpt2_jax.inference.requests import Request
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import build_decoder
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.engine_runs import finish, ids, run, said
from tests.inference.tiny import noisy_params, tiny_config

_SMALL = tiny_config(context_length=24)


@pytest.fixture(scope="module")
def small() -> Any:
    decoder = build_decoder(_SMALL.model, _SMALL.compute)
    params = decode_params(decoder, noisy_params(_SMALL))
    return lambda: Engine(decoder, params, ByteTokenizer(), num_slots=3)


@pytest.mark.slow
def test_each_half_window_of_a_sliding_text_is_that_of_a_fresh_prefill(small: Any) -> None:
    engine = small()
    prompt = ids(17, 7)
    (choice, other) = engine.submit(
        Request(prompt, 17 + 12 + 12 + 5, SamplingOptions(temperature=0), slide=True, num_choices=2)
    )
    (mate,) = engine.submit(Request(ids(18, 3), 20, seed=9))
    finish(engine, choice, other, mate)
    text = [*prompt, *choice.tokens]
    assert len(text) == 24 + 12 + 12 + 5
    assert other.tokens == choice.tokens
    for end, count in ((24, 12), (36, 12), (48, 5)):
        fresh = run(small(), Request(text[end - 12 : end], count, SamplingOptions(temperature=0)))
        assert fresh.tokens == text[end : end + count]


def test_a_sliding_text_goes_on_with_its_noise_counts_and_log_probabilities(small: Any) -> None:
    options = SamplingOptions(0.5, presence_penalty=2, frequency_penalty=2)
    engine = small()
    request = Request(ids(19, 20), 60, options, slide=True, seed=1, logprobs=True)
    choice = run(engine, request)
    assert len(choice.tokens) == len(choice.logprobs) == 60
    assert len({*choice.tokens}) > 40, "the penalties of tokens that are out of sight are lost"
    mates = [engine.submit(dataclasses.replace(request, seed=seed))[0] for seed in (2, 1, 3, 4)]
    finish(engine, *mates)
    assert said(mates[1]) == said(choice)


def test_a_sliding_text_can_be_cancelled_while_it_is_read_again(small: Any) -> None:
    engine = small()
    (choice,) = engine.submit(Request(ids(20, 22), 60, slide=True))
    while len(choice.tokens) < 2:
        engine.step()
    assert len(choice.tokens) == 2
    engine.cancel(choice)
    assert engine.num_running == 0
    expected = said(run(small(), Request(ids(21, 5), 19, seed=2)))
    assert said(run(engine, Request(ids(21, 5), 19, seed=2))) == expected
    assert len(choice.tokens) == 2


@pytest.mark.slow
def test_three_thousand_tokens_of_a_context_of_1024() -> None:
    config = tiny_config(context_length=1024)
    decoder = build_decoder(config.model, config.compute)
    params = decode_params(decoder, noisy_params(config))
    greedy = SamplingOptions(temperature=0)
    prompt = ids(22, 30)
    engine = Engine(decoder, params, ByteTokenizer(), num_slots=1)
    text = [*prompt, *run(engine, Request(prompt, 3000, greedy, slide=True)).tokens]
    assert len(text) == 3030
    for end in range(1024, 3030, 512):
        fresh = Engine(decoder, params, ByteTokenizer(), num_slots=1)
        count = min(512, 3030 - end)
        again = run(fresh, Request(text[end - 512 : end], count, greedy))
        assert again.tokens == text[end : end + count], end
