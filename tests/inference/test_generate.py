"""Tests generation: the cache against full forwards, ragged batches, lengths, seeds and streams."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.inference import generate as generate_lib
from gpt2_jax.inference.generate import (
    bucket,
    check_length,
    decode_params,
    encode_prompt,
    generate,
    generate_text,
    generate_tokens,
)
from gpt2_jax.inference.prefill import Drawn
from gpt2_jax.inference.requests import Choice, Request
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import build_decoder, build_model
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from tests.inference.tiny import noisy_params, tiny_config

_CONTEXT = 72
_CONFIG = tiny_config(context_length=_CONTEXT)
_MODEL = build_decoder(_CONFIG.model, _CONFIG.compute)
# Prompts and counts below add up to 65..72 tokens: one size of cache, so few programs to compile.
_GREEDY = SamplingOptions(temperature=0.0)
_BYTES = ByteTokenizer()


@pytest.fixture(scope="module")
def scanned() -> Any:
    return noisy_params(_CONFIG)


@pytest.fixture(scope="module")
def params(scanned: Any) -> dict[str, Any]:
    return decode_params(_MODEL, scanned)


def _tokens(params: Any, prompts: Sequence[Sequence[int]], count: int, **options: Any) -> Any:
    return generate_tokens(_MODEL, params, prompts, count, **options)


@functools.cache
def _forward() -> Any:
    model = build_model(_CONFIG.model, _CONFIG.compute)
    return jax.jit(lambda p, tokens: model.apply({"params": p}, tokens, method="logits")[0])


def _prompts(seed: int, *lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, length).tolist() for length in lengths]


# Tokens.


def test_greedy_tokens_are_the_argmax_of_full_uncached_forwards_up_to_the_context(
    scanned: Any, params: Any
) -> None:
    """64 tokens that end in the last slot, against the training model: scanned, no cache."""
    prompts = _prompts(0, 8, 5, 1)
    new = _tokens(params, prompts, 64, options=_GREEDY)
    assert new.shape == (3, 64)
    assert len(prompts[0]) + 64 == _CONTEXT
    whole = np.zeros((3, _CONTEXT), np.int32)
    for row, prompt, tokens in zip(whole, prompts, new, strict=True):
        row[: len(prompt) + 64] = [*prompt, *tokens]
    # Causal: position t of one forward is what a forward over tokens 0..t ends with.
    logits = np.asarray(_forward()(scanned, jnp.asarray(whole)))
    for row, prompt, tokens in zip(logits, prompts, new, strict=True):
        start = len(prompt) - 1
        np.testing.assert_array_equal(row[start : start + 64].argmax(-1), tokens)
    assert len(set(new.ravel().tolist())) > 20, "a model that says one thing would prove nothing"


def test_rows_of_a_ragged_batch_equal_each_row_alone(params: Any) -> None:
    prompts = _prompts(1, 7, 1, 3)
    together = _tokens(params, prompts, 64, options=_GREEDY)
    for prompt, row in zip(prompts, together, strict=True):
        np.testing.assert_array_equal(_tokens(params, [prompt], 64, options=_GREEDY)[0], row)


def test_what_pads_a_prompt_is_never_seen(params: Any) -> None:
    """A row's tokens do not change with the length, and so the padding, of the others."""
    short = _prompts(2, 3)[0]
    alone = _tokens(params, [short, short, short], 64, options=_GREEDY)[0]
    beside = _tokens(params, [short, *_prompts(3, 30, 17)], 42, options=_GREEDY)[0]
    np.testing.assert_array_equal(alone[:42], beside)


def test_there_are_as_many_tokens_as_asked_for(params: Any) -> None:
    for count in (1, 16, 17):
        tokens = _tokens(params, [[1] * (65 - count)], count)
        assert tokens.shape == (1, count)
        assert tokens.dtype == np.int32


def test_fewer_tokens_are_the_first_of_more(params: Any) -> None:
    prompt = [1] * 48
    long = _tokens(params, [prompt], 24, seed=5)
    for count in (17, 20, 23):
        np.testing.assert_array_equal(_tokens(params, [prompt], count, seed=5), long[:, :count])


def test_the_seed_decides(params: Any) -> None:
    prompts = [[1] * 40]
    once = _tokens(params, prompts, 32, seed=7)
    np.testing.assert_array_equal(once, _tokens(params, prompts, 32, seed=7))
    assert (once != _tokens(params, prompts, 32, seed=8)).mean() > 0.5


def test_samples_of_one_prompt_differ(params: Any) -> None:
    rows = _tokens(params, [[65], [65], [65]], 64)
    assert len({tuple(row) for row in rows.tolist()}) == 3


def test_tokens_stay_inside_the_unpadded_vocabulary(params: Any) -> None:
    assert _CONFIG.model.padded_vocab_size > _CONFIG.model.vocab_size
    # All zeros: every token, padding included if it were among them, would be as likely.
    drawn = _tokens(jax.tree.map(jnp.zeros_like, params), [[1]] * 3, 64)
    assert drawn.min() >= 0
    assert drawn.max() < _CONFIG.model.vocab_size


def test_decode_params_are_unrolled_in_the_compute_dtype_but_for_norms(scanned: Any) -> None:
    bfloat16 = dataclasses.replace(_CONFIG.compute, dtype="bfloat16")
    half = decode_params(build_decoder(_CONFIG.model, bfloat16), scanned)
    assert set(half) == {"wte", "wpe", "ln_f", "h_0", "h_1"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(half):
        expected = "float32" if "ln_" in jax.tree_util.keystr(path) else "bfloat16"
        assert leaf.dtype == expected, path
    full = decode_params(_MODEL, scanned)
    kernel = scanned["h"]["mlp"]["c_fc"]["kernel"]
    np.testing.assert_array_equal(full["h_1"]["mlp"]["c_fc"]["kernel"], kernel[1])


# Lengths.


def test_more_than_the_context_is_refused_with_both_counts(params: Any) -> None:
    with pytest.raises(UserError) as error:
        generate_tokens(_MODEL, params, [[1] * 60], 13)
    message = str(error.value)
    assert all(part in message for part in ("60 tokens", "max_new_tokens=13", "context of 72"))
    assert "\n" not in message


def test_a_prompt_as_long_as_the_context_has_no_room(params: Any) -> None:
    for length in (_CONTEXT, _CONTEXT + 5):
        with pytest.raises(UserError) as error:
            next(generate(_MODEL, params, _BYTES, ["x" * length]))
        assert f"{length} tokens" in str(error.value)
        assert "72" in str(error.value)


def test_the_longest_row_decides_whether_it_fits(params: Any) -> None:
    with pytest.raises(UserError, match="70 tokens"):
        next(generate(_MODEL, params, _BYTES, ["x", "x" * 70], max_new_tokens=3))


@pytest.mark.parametrize("count", [0, -1])
def test_at_least_one_token_must_be_asked_for(params: Any, count: int) -> None:
    with pytest.raises(UserError, match="max_new_tokens must be at least 1"):
        next(generate(_MODEL, params, _BYTES, ["x"], max_new_tokens=count))


def test_lengths_that_just_fit_are_taken() -> None:
    check_length(_CONFIG.model, _CONTEXT - 1, 1)
    check_length(_CONFIG.model, 1, _CONTEXT - 1)


@pytest.mark.parametrize(
    "position",
    ["relative", *(pytest.param(p, marks=pytest.mark.slow) for p in ("rotary", "alibi", "none"))],
)
def test_only_learned_positions_end_generation_at_the_context(position: str) -> None:
    config = tiny_config(context_length=16, position=position)
    decoder, scanned = build_decoder(config.model, config.compute), noisy_params(config)
    decoding = decode_params(decoder, scanned)
    prompts = _prompts(6, 20, 3)  # the first is longer than the context by itself
    new = generate_tokens(decoder, decoding, prompts, 24, options=_GREEDY)
    whole = np.zeros((2, 44), np.int32)
    for row, prompt, tokens in zip(whole, prompts, new, strict=True):
        row[: len(prompt) + 24] = [*prompt, *tokens]
    model = build_model(config.model, config.compute)
    run = jax.jit(lambda p, t: model.apply({"params": p}, t, method="logits")[0])
    for row, prompt, tokens in zip(np.asarray(run(scanned, whole)), prompts, new, strict=True):
        start = len(prompt) - 1
        np.testing.assert_array_equal(row[start : start + 24].argmax(-1), tokens)


def test_lengths_beyond_the_context_are_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match=r"beyond which model\.position=learned has no positions"):
        check_length(_CONFIG.model, _CONTEXT, 1)
    rotary = dataclasses.replace(_CONFIG.model, position="rotary")
    check_length(rotary, _CONTEXT, 1000)
    with pytest.raises(UserError, match=r"max_new_tokens=65536 exceed the 65536 tokens"):
        check_length(rotary, 1, 2**16)
    model = build_decoder(rotary, _CONFIG.compute)
    with pytest.raises(UserError, match=r"shorten it, or set max_new_tokens to exceed it"):
        generate(model, {}, _BYTES, ["x" * _CONTEXT])


def test_the_context_is_filled_by_default(params: Any) -> None:
    # Greedy, which never says end of text here, so that the length is what ends it.
    (sample,) = generate_text(_MODEL, params, _BYTES, ["abcdefgh"], options=_GREEDY)
    assert len(sample.tokens) == _CONTEXT - 8
    assert sample.finish_reason == "length"
    assert _BYTES.eot not in sample.tokens


def test_buckets_are_powers_of_two_up_to_the_limit() -> None:
    assert [bucket(n, 1024) for n in (1, 16, 17, 32, 33, 1000, 1024)] == [
        16, 16, 32, 32, 64, 1024, 1024,
    ]  # fmt: skip
    assert bucket(3, 8) == 8
    assert bucket(70, 72) == 72


def test_token_ids_continue_as_the_text_they_are(params: Any) -> None:
    texts = ["abcdefgh", "ab", ""]
    ids = [encode_prompt(_BYTES, text) for text in texts]
    options = {"max_new_tokens": 20, "options": _GREEDY}
    samples = generate_text(_MODEL, params, _BYTES, texts, **options)
    assert generate_text(_MODEL, params, _BYTES, ids, **options) == samples
    assert generate_text(_MODEL, params, _BYTES, [ids[0], *texts[1:]], **options) == samples


def test_an_empty_prompt_starts_from_end_of_text_or_a_newline() -> None:
    assert encode_prompt(_BYTES, "") == [256]
    assert encode_prompt(_BYTES, "ab") == [97, 98]
    characters = CharTokenizer("\nab")
    assert characters.eot is None
    assert encode_prompt(characters, "") == characters.encode("\n") == [0]


def test_a_char_tokenizer_without_a_newline_says_what_to_do() -> None:
    with pytest.raises(UserError):
        encode_prompt(CharTokenizer("ab"), "")


# Streams.


class _Script:
    """Stands for an engine that says given rows, two tokens a step."""

    def __init__(self, *rows: Sequence[int]) -> None:
        self._rows, self._choices, self.steps = [[*row] for row in rows], list[Choice](), 0

    def submit(self, request: Request) -> list[Choice]:
        choices = [Choice(request, i, _BYTES) for i in range(request.num_choices)]
        self._choices += choices
        return choices

    def step(self) -> None:
        self.steps += 1
        for i, choice in enumerate(self._choices):
            if not choice.finished:
                choice.take(Drawn(np.array(self._rows[i][:2], np.int32)))
            self._rows[i] = self._rows[i][2:]


def test_pieces_of_every_row_join_to_its_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    script = _Script(b"abEND...", [*b"abcEN", 256, *b".."], b"abcdefEN")
    monkeypatch.setattr(generate_lib, "Engine", lambda *_, **__: script)
    texts, samples = ["", "", ""], []
    for pieces in generate(_MODEL, {}, _BYTES, ["x"] * 3, stop=["END"], max_new_tokens=8):
        texts = [text + piece for text, (piece, _) in zip(texts, pieces, strict=True)]
        samples = [sample for _, sample in pieces]
    assert texts == [sample.text for sample in samples] == ["ab", "abcEN", "abcdefEN"]
    assert [sample.finish_reason for sample in samples] == ["stop", "stop", "length"]
    assert script.steps == 4


def test_generation_ends_as_soon_as_every_row_has(monkeypatch: pytest.MonkeyPatch) -> None:
    script = _Script([97, 256, *b"......"], [256, *b"......."])
    monkeypatch.setattr(generate_lib, "Engine", lambda *_, **__: script)
    samples = generate_text(_MODEL, {}, _BYTES, ["x", "y"])
    assert script.steps == 1
    assert [(sample.text, sample.tokens) for sample in samples] == [("a", [97, 256]), ("", [256])]


def test_a_real_stream_joins_to_the_text_of_the_same_seed(params: Any) -> None:
    options: dict[str, Any] = {"max_new_tokens": 64, "seed": 3}
    whole = generate_text(_MODEL, params, _BYTES, ["ab", "c", ""], **options)
    stop = whole[0].text[10:12]
    texts = ["", "", ""]
    final: list[Any] = []
    for pieces in generate(_MODEL, params, _BYTES, ["ab", "c", ""], stop=[stop], **options):
        texts = [text + piece for text, (piece, _) in zip(texts, pieces, strict=True)]
        final = [sample for _, sample in pieces]
    assert texts == [sample.text for sample in final]
    assert final[0].finish_reason == "stop"
    for text, sample in zip(texts, whole, strict=True):
        assert text == sample.text.partition(stop)[0]
