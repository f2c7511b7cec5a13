"""The Python API on a model of random weights: shapes, probabilities, and how they agree."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import gpt2_jax
from gpt2_jax.api import LanguageModel, NextToken
from gpt2_jax.errors import UserError
from gpt2_jax.formats import load as load_lib
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.tokenizers.char import CharTokenizer
from tests.inference.tiny import make_run

_CONTEXT = 32
_TEXT = "a cat, é"  # 9 bytes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return gpt2_jax.load(make_run(tmp_path_factory.mktemp("api") / "run"))


def test_load_takes_paths_and_strings_and_gives_a_language_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for name in (run, str(run)):
        loaded = gpt2_jax.load(name)
        assert isinstance(loaded, gpt2_jax.LanguageModel)
        assert loaded.config.model.context_length == _CONTEXT
        assert loaded.tokenizer.name == "byte"
    with pytest.raises(UserError):
        gpt2_jax.load(tmp_path / "missing")


# Generation.


def test_generate_gives_as_many_samples_and_tokens_as_asked_for(model: LanguageModel) -> None:
    samples = model.generate("ab", num_samples=3, max_new_tokens=30, seed=1)
    assert len(samples) == 3
    for sample in samples:
        ended = sample.tokens[-1] == model.tokenizer.eot
        assert sample.finish_reason == ("stop" if ended else "length")
        assert len(sample.tokens) == 30 or ended
        assert sample.text == model.tokenizer.decode(sample.tokens)
    assert len({sample.text for sample in samples}) == 3


def test_generate_is_a_function_of_its_seed(model: LanguageModel) -> None:
    def texts(seed: int) -> list[str]:
        return [s.text for s in model.generate("ab", num_samples=3, max_new_tokens=30, seed=seed)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_generate_fills_the_context_by_default(model: LanguageModel) -> None:
    (sample,) = model.generate("ab", options=SamplingOptions(temperature=0.0))
    assert len(sample.tokens) == _CONTEXT - 2


def test_stream_joins_to_the_text_that_generate_gives(model: LanguageModel) -> None:
    for seed in range(3):
        pieces = list(model.stream("ab", max_new_tokens=30, seed=seed))
        (sample,) = model.generate("ab", max_new_tokens=30, seed=seed)
        assert "".join(pieces) == sample.text
        assert all(pieces)
        stop = sample.text[5:7]
        stopped = "".join(model.stream("ab", max_new_tokens=30, seed=seed, stop=[stop]))
        assert stopped == sample.text.partition(stop)[0]
        pieces = model.stream("ab", max_new_tokens=30, seed=seed, stop=iter([stop]))
        assert "".join(pieces) == stopped
        (again,) = model.generate("ab", max_new_tokens=30, seed=seed, stop=(s for s in [stop]))
        assert again.text == stopped


def test_greedy_text_is_what_next_tokens_say(model: LanguageModel) -> None:
    (sample,) = model.generate("ab", options=SamplingOptions(temperature=0.0))
    tokens = model.tokenizer.encode("ab")
    for token in sample.tokens[:3]:
        text = model.tokenizer.decode(tokens)
        if model.tokenizer.encode(text) != tokens:
            break  # half a character: no prompt can say it
        assert model.next_tokens(text, 1)[0].id == token
        tokens.append(token)


def test_num_samples_must_be_positive(model: LanguageModel) -> None:
    for count in (0, -1):
        with pytest.raises((UserError, ValueError)):
            model.generate("ab", num_samples=count, max_new_tokens=30)


# Looking into the model.


def test_next_tokens_are_a_distribution_most_probable_first(model: LanguageModel) -> None:
    every = model.next_tokens(_TEXT, count=model.tokenizer.vocab_size)
    assert all(isinstance(token, NextToken) for token in every)
    assert sorted(token.id for token in every) == list(range(model.tokenizer.vocab_size))
    probabilities = [token.probability for token in every]
    assert probabilities == sorted(probabilities, reverse=True)
    assert math.isclose(sum(probabilities), 1, rel_tol=1e-5)
    assert model.next_tokens(_TEXT) == every[:10]
    assert model.next_tokens(_TEXT, 3) == every[:3]
    for token in every[:10]:
        assert token.text == model.tokenizer.decode([token.id])


def test_next_tokens_of_nothing_are_those_after_end_of_text(model: LanguageModel) -> None:
    every = model.next_tokens("", count=1000)
    assert math.isclose(sum(token.probability for token in every), 1, rel_tol=1e-5)


def test_a_score_is_the_logarithm_of_the_probability_of_the_next_token(
    model: LanguageModel,
) -> None:
    score = model.score(_TEXT)
    assert score.tokens == model.tokenizer.encode(_TEXT)
    assert len(score.logprobs) == len(score.tokens) - 1
    assert all(logprob < 0 for logprob in score.logprobs)
    for position in range(1, 8):  # within the ASCII part, where a byte is a character
        beside = {t.id: t.probability for t in model.next_tokens(_TEXT[:position], 1000)}
        expected = math.log(beside[score.tokens[position]])
        assert math.isclose(score.logprobs[position - 1], expected, abs_tol=1e-4)


def test_a_score_does_not_depend_on_what_follows(model: LanguageModel) -> None:
    """Causal, and what pads the tokens to a power of two is not seen."""
    long = "abcdefghijklmnopqrstuvwxyz"
    whole = model.score(long).logprobs
    for length in (2, 15, 16, 17):
        np.testing.assert_allclose(
            model.score(long[:length]).logprobs, whole[: length - 1], atol=1e-4
        )


def test_a_score_of_one_token_is_empty(model: LanguageModel) -> None:
    assert model.score("a").logprobs == []


def test_attention_is_causal_and_each_query_spends_one(model: LanguageModel) -> None:
    maps = model.attention(_TEXT)
    assert maps.shape == (2, 4, 9, 9)
    assert maps.dtype == np.float32
    assert (maps >= 0).all()
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    assert not maps[..., ~np.tri(9, dtype=bool)].any()
    assert (maps[..., np.tri(9, dtype=bool)] > 0).all()
    np.testing.assert_array_equal(maps[..., 0, 0], 1)
    # Every layer and head has its own.
    flat = maps.reshape(8, -1)
    assert all((one != other).any() for i, one in enumerate(flat) for other in flat[:i])


def test_text_up_to_the_context_is_taken_and_no_longer_text(model: LanguageModel) -> None:
    assert len(model.score("x" * _CONTEXT).logprobs) == _CONTEXT - 1
    for ask in (model.score, model.attention, model.next_tokens):
        with pytest.raises(UserError) as error:
            ask("x" * (_CONTEXT + 1))
        assert f"{_CONTEXT + 1} tokens" in str(error.value)
        assert f"context of {_CONTEXT}" in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=f"{_CONTEXT} tokens"):
        model.generate("x" * _CONTEXT)


def test_a_prompt_the_tokenizer_does_not_know_is_refused(tmp_path: Path) -> None:
    model = gpt2_jax.load(make_run(tmp_path / "run", tokenizer=CharTokenizer("\nab")))
    for ask in (model.score, model.generate):
        with pytest.raises(UserError, match="does not know 'z'"):
            ask("abz")
    # No end of text: an unconditional text starts from a newline.
    assert model.tokenizer.eot is None
    assert model.next_tokens("") == model.next_tokens("\n")
    (sample,) = model.generate("")
    assert len(sample.tokens) == _CONTEXT - 1
    assert set(sample.text) <= set("\nab")


def test_looking_changes_nothing(model: LanguageModel) -> None:
    before = model.score(_TEXT)
    model.generate("ab", max_new_tokens=30, seed=1)
    model.attention(_TEXT)
    assert model.score(_TEXT) == before


def test_ids_are_as_good_as_their_text(model: LanguageModel) -> None:
    ids = model.tokenizer.encode(_TEXT)
    assert model.score(np.array(ids)) == model.score(tuple(ids)) == model.score(_TEXT)  # pyright: ignore
    assert model.next_tokens(ids) == model.next_tokens(_TEXT)
    np.testing.assert_array_equal(model.attention(ids), model.attention(_TEXT))
    options: dict[str, Any] = {"max_new_tokens": 20, "seed": 3}
    assert model.generate(ids, **options) == model.generate(_TEXT, **options)
    assert "".join(model.stream(ids, **options)) == model.generate(ids, **options)[0].text
    # Text cannot hold the end of text, but ids can.
    assert model.generate([256, *ids], max_new_tokens=2)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "give at least one token id"),
        ([1, 257], "token id 257 is not in the byte tokenizer's vocabulary: ids must be from 0"),
        ([-1], "token id -1 is not in"),
        ([1] * 40, "40 tokens"),
    ],
)
def test_ids_that_do_not_fit_the_model_are_refused(
    model: LanguageModel, ids: list[int], message: str
) -> None:
    asks: list[Any] = [model.generate, model.score, model.next_tokens, model.attention]
    for ask in (*asks, lambda ids: next(model.stream(ids))):
        with pytest.raises(UserError, match=message):
            ask(ids)


def test_what_is_no_text_or_no_options_is_refused(model: LanguageModel) -> None:
    asks: list[Any] = [model.generate, model.score, model.next_tokens, model.attention]
    for ask in asks:
        for wrong in (["a", "b"], 5, b"bytes", [1.0], [True], [[1]], None):
            with pytest.raises(UserError, match=r"must be (a string|an integer)"):
                ask(wrong)
    with pytest.raises(UserError, match=r"must be (a string|an integer)"):
        next(model.stream(["a"]))  # pyright: ignore
    with pytest.raises(UserError, match="SamplingOptions"):
        model.generate("a", options={"temperature": 0})  # pyright: ignore
    with pytest.raises(UserError, match="top_k must be an integer"):
        gpt2_jax.SamplingOptions(top_k=1.5)  # pyright: ignore
    with pytest.raises(UserError, match="count must be"):
        model.next_tokens("a", 0)
    with pytest.raises(UserError, match="empty"):
        gpt2_jax.load("")


def test_half_as_wide_weights_are_an_option(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    whole, half = gpt2_jax.load(run), gpt2_jax.load(run, dtype="bfloat16")
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(m.params)) for m in (whole, half)]
    assert sizes[1] < 0.51 * sizes[0]  # norms stay float32
    scores = [np.array(m.score("half as wide").logprobs) for m in (whole, half)]
    error = np.abs(scores[0] - scores[1]).max()
    assert 0 < error < 0.2
    # What is looked into are the weights as they are stored; `whole` is float32.
    for narrow in (half, LanguageModel(load_lib.load(run, dtype="bfloat16"))):
        found, expected = (m.inspect("half as wide") for m in (narrow, whole))
        np.testing.assert_array_equal(found["logits"], expected["logits"])
        assert found.summary() == expected.summary()
    with pytest.raises(
        UserError, match=r"compute\.dtype must be one of float32, bfloat16, auto, not 'half'"
    ):
        gpt2_jax.load(run, dtype="half")
