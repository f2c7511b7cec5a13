"""Tests that lm-eval gets log-likelihoods that plain forwards compute, and only once each."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax.errors import UserError
from gpt2_jax.evals import harness
from gpt2_jax.evals.harness import GPT2JaxLM
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.scoring import Likelihood, Scorer, windows
from gpt2_jax.inference.text import Sample
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from tests.evals.plain_forwards import EOT, LENGTH, logits_after, needs_lm_eval, plain, requests
from tests.inference.tiny import make_run, tiny_config


def the_most_probable_byte_after(text: bytes) -> str:
    best = int(logits_after([*text])[-1][:128].argmax())
    return chr(best)


# Log-likelihoods.


@needs_lm_eval
def test_log_likelihoods_equal_plain_forwards(model: GPT2JaxLM) -> None:
    long = "a long story that tells of many things, and goes on"
    asked = {
        ("the cat", " sat"): (b"the cat", b" sat"),
        ("the cat", " lay down"): (b"the cat", b" lay down"),
        # Spaces at the end of a context count to what follows.
        ("the cat  ", "sat"): (b"the cat", b"  sat"),
        ("", "sat"): ([EOT], b"sat"),
        ("  ", "sat"): ([EOT], b"  sat"),
        # Too long together by 17 and by 18: each loses its own beginning.
        (long, " x"): (long.encode(), b" x"),
        (long, " xy"): (long.encode(), b" xy"),
        ("", "z" * LENGTH): ([EOT], b"z" * LENGTH),
        ("the cat", "!"): (b"the cat", b"!"),
    }
    found = model.loglikelihood(requests("loglikelihood", *asked))
    for answer, (context, continuation) in zip(found, asked.values(), strict=True):
        assert answer == (pytest.approx(plain(context, continuation)[0], rel=1e-5), answer[1])
        assert type(answer[0]) is float and type(answer[1]) is bool


@needs_lm_eval
def test_a_continuation_is_greedy_where_each_of_its_tokens_is(model: GPT2JaxLM) -> None:
    first, second = "", "ab"
    found = {}
    for _ in range(3):
        first += the_most_probable_byte_after(b"the" + first.encode())
    asked = [("the", first), ("the", first[:-1] + chr(ord(first[-1]) ^ 1)), ("the", second)]
    for pair, answer in zip(asked, model.loglikelihood(requests("", *asked)), strict=True):
        found[pair[1]] = answer[1]
        assert answer[1] == plain(pair[0].encode(), pair[1].encode())[1]
    assert not found[second]


@needs_lm_eval
def test_too_long_a_continuation_is_refused(model: GPT2JaxLM) -> None:
    with pytest.raises(UserError, match="38 tokens, more than the model's context of 37"):
        model.loglikelihood(requests("loglikelihood", ("a", "z" * 38)))


@needs_lm_eval
def test_the_end_of_text_spelled_out_is_its_token(tmp_path: Path) -> None:
    """Converts it like transformers, unlike our tokenizers, since `prepare` must take any text."""
    tokenizer = GPT2Tokenizer()
    config = tiny_config(tokenizer, num_heads=1, d_model=4)
    model = GPT2JaxLM(make_run(tmp_path / "run", config, tokenizer))
    hello, world = tokenizer.encode("hello"), tokenizer.encode(" world")
    assert model.tok_encode("hello<|endoftext|> world") == [*hello, 50256, *world]
    assert model.tok_encode("<|endoftext|><|endoftext|>") == [50256, 50256]
    assert model.tok_encode("") == [] and model.tok_encode("hello") == hello
    # lm-eval scores the first token after it, not the end of text itself.
    (twice, once) = model.loglikelihood(requests("", ("", "<|endoftext|>hello"), ("", "hello")))
    assert twice == once


# Whole texts.


@needs_lm_eval
@given(length=st.integers(0, 100), context=st.integers(1, 40))
def test_windows_are_those_of_lm_eval(length: int, context: int) -> None:
    theirs = importlib.import_module("lm_eval.utils")
    tokens = list(range(1, length + 1))
    cut = theirs.get_rolling_token_windows(tokens, 0, context, context_len=1)
    expected = [tuple(map(tuple, theirs.make_disjoint_window(pair))) for pair in cut]
    found = windows(tokens, 0, context, stride=context)
    assert [(one.context, *one.continuations) for one in found] == expected


@needs_lm_eval
def test_whole_texts_equal_plain_forwards_over_their_windows(model: GPT2JaxLM) -> None:
    text = "of several windows, the last of which is filled up with what came before it"
    texts = [text[:1], text[:37], text[:38], text, "", text[:74]]
    assert len(text) == 75
    found = model.loglikelihood_rolling(requests("", *[(one,) for one in texts]))
    ids = text.encode()
    first = plain([EOT], ids[:37])[0]
    second = plain(ids[36:37], ids[37:74])[0]
    assert found == [
        pytest.approx(plain([EOT], ids[:1])[0], rel=1e-5),
        pytest.approx(first, rel=1e-5),
        pytest.approx(first + plain(ids[:37], ids[37:38])[0], rel=1e-5),
        pytest.approx(first + second + plain(ids[37:74], ids[74:])[0], rel=1e-5),
        0.0,
        pytest.approx(first + second, rel=1e-5),
    ]


# What lm-eval does around it.


@needs_lm_eval
def test_what_is_cached_is_not_computed_again_even_after_a_stop(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaces the model's answers by ones that are computed from the tokens."""
    computed: list[Any] = []
    allowed = 10**6

    def compute(what: Any) -> None:
        if len(computed) == allowed:
            raise KeyboardInterrupt
        computed.append(what)

    def score(self: Scorer, asked: Sequence[Request]) -> Any:
        for index in reversed(range(len(asked))):
            request = asked[index]
            compute(request)
            yield (
                index,
                [
                    Likelihood(
                        np.float32([-sum(request.context), *one]),
                        greedy=np.array([one[0] % 2]),
                        allowed=np.array([one[0] % 2]),
                    )
                    for one in request.continuations
                ],
            )

    def write(decoder: Any, params: Any, tokenizer: Any, prompts: Any, **how: Any) -> Any:
        compute(prompts)
        return [Sample("", [*map(int, prompt)][::-1], "length") for prompt in prompts]

    monkeypatch.setattr(Scorer, "score", score)
    monkeypatch.setattr(harness, "generate_text", write)
    asked = {
        "loglikelihood": [(c * 5, f" {choice}") for c in "abcde" for choice in "xyz"],
        "loglikelihood_rolling": [("ab" * n,) for n in (9, 30, 40, 60)],
        "generate_until": [(c * 3, {"until": ["x"], "max_gen_toks": 5}) for c in "abcde"],
    }
    model = GPT2JaxLM(run, batch_size=2)
    expected = {kind: getattr(model, kind)(requests(kind, *args)) for kind, args in asked.items()}
    cached = importlib.import_module("lm_eval.api.model").CachingLM(model, f"{tmp_path}/cache.db")
    # Computations before the stop, answers kept of them, computations left: of contexts with three
    # continuations each, of windows, the last of which make one text, and of batches.
    stops = {
        "loglikelihood": (3, 9, 2),
        "loglikelihood_rolling": (5, 1, 6),
        "generate_until": (2, 4, 1),
    }
    for kind, (before, kept, left) in stops.items():
        already = len(cached.dbdict)
        computed, allowed = [], before
        with pytest.raises(KeyboardInterrupt):
            getattr(cached, kind)(requests(kind, *asked[kind]))
        assert len(cached.dbdict) == already + kept
        computed, allowed = [], 10**6
        for _ in range(2):
            found = getattr(cached, kind)(requests(kind, *asked[kind]))
            assert json.dumps(found) == json.dumps(expected[kind])
        assert len(computed) == left


@needs_lm_eval
def test_bars_are_shown_unless_disabled(
    model: GPT2JaxLM, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = {
        "loglikelihood": [("a", "b"), ("a", "c")],
        "loglikelihood_rolling": [("x" * 50,)],
        "generate_until": [("a", {"until": ["x"], "max_gen_toks": 2})],
    }
    for kind, arguments in calls.items():
        getattr(model, kind)(requests(kind, *arguments), disable_tqdm=True)
        assert capsys.readouterr().err == ""
        getattr(model, kind)(requests(kind, *arguments))
        shown = capsys.readouterr().err
        total = {"loglikelihood": 2, "loglikelihood_rolling": 2, "generate_until": 1}[kind]
        assert f"Running {kind} requests: 100%" in shown and f"{total}/{total}" in shown


@needs_lm_eval
def test_a_chat_template_is_refused(model: GPT2JaxLM) -> None:
    with pytest.raises(UserError, match="leave --apply_chat_template out"):
        model.apply_chat_template([{"role": "user", "content": "hello"}])
