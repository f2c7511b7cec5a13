"""Tests that lm-eval gets texts that plain forwards continue, up to its stop strings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.evals import harness
from gpt2_jax.evals.harness import GPT2JaxLM
from gpt2_jax.inference.text import Sample
from gpt2_jax.tokenizers.char import CharTokenizer
from tests.evals.plain_forwards import EOT, LENGTH, needs_lm_eval, plain_greedy, requests
from tests.inference.tiny import make_run, tiny_config

_CHARS = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz.:")


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> GPT2JaxLM:
    """Makes a model whose tokens are characters, so that stop strings occur often."""
    config = tiny_config(_CHARS, context_length=LENGTH)
    return GPT2JaxLM(make_run(tmp_path_factory.mktemp("harness") / "chars", config, _CHARS))


def generated(model: GPT2JaxLM, *asked: tuple[str, dict[str, Any]]) -> list[str]:
    return model.generate_until(requests("generate_until", *asked), disable_tqdm=True)


@needs_lm_eval
@pytest.mark.parametrize("batch_size", [1, "auto"])
def test_texts_are_plain_greedy_ones_in_the_order_asked_for(
    run: Path, batch_size: int | str
) -> None:
    model = GPT2JaxLM(run, batch_size=batch_size)
    contexts = ["a", "the cat sat", "", "a story that is too long to fit with all its text", "the"]
    counts = [8, 8, 8, 20, 20]
    asked = [
        (context, {"max_gen_toks": count, "until": []})
        for context, count in zip(contexts, counts, strict=True)
    ]
    found = generated(model, *asked)
    for (context, _), count, text in zip(asked, counts, found, strict=True):
        # A context loses its beginning where the new tokens would not fit behind it.
        prompt = list(context.encode())[-(LENGTH - count) :] or [EOT]
        tokens = plain_greedy(prompt, count)
        tokens = tokens[: tokens.index(EOT)] if EOT in tokens else tokens
        assert text == bytes(tokens).decode("utf-8", errors="replace")
    assert len({*found}) == len(found)


@needs_lm_eval
def test_a_text_ends_before_its_first_stop_string(writer: GPT2JaxLM) -> None:
    (whole,) = generated(writer, ("the cat", {"until": [], "max_gen_toks": 24}))
    assert len(whole) == 24
    for start in range(1, 20):
        stop = whole[start : start + 3]
        wanted = {"until": ["never", stop], "max_gen_toks": 24}
        assert generated(writer, ("the cat", wanted)) == [whole[: whole.index(stop)]]
        # One string for a list of it, as some tasks have it.
        assert generated(writer, ("the cat", wanted | {"until": stop})) == [
            whole[: whole.index(stop)]
        ]


@needs_lm_eval
def test_nothing_is_generated_after_a_stop_string(
    writer: GPT2JaxLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples: list[Sample] = []

    def generate_text(*args: Any, **options: Any) -> list[Sample]:
        samples.extend(original(*args, **options))
        return samples[-1:]

    original = harness.generate_text
    monkeypatch.setattr(harness, "generate_text", generate_text)
    (whole,) = generated(writer, ("the cat", {"until": [], "max_gen_toks": 24}))
    generated(writer, ("the cat", {"until": whole[3], "max_gen_toks": 24}))
    assert [sample.finish_reason for sample in samples] == ["length", "stop"]
    assert len(samples[1].tokens) == whole.index(whole[3]) + 1


@needs_lm_eval
def test_where_stop_strings_overlap_their_order_decides(writer: GPT2JaxLM) -> None:
    """Checks that lm-eval applies them in turn: a short one may remove part of a longer one."""
    (whole,) = generated(writer, ("the cat", {"until": [], "max_gen_toks": 24}))
    start = next(i for i in range(1, 20) if whole.index(whole[i : i + 4]) == i)
    long = whole[start : start + 4]
    short = long[1:]
    cut = {"short first": [short, long], "long first": [long, short]}
    found = {
        name: generated(writer, ("the cat", {"until": until, "max_gen_toks": 24}))[0]
        for name, until in cut.items()
    }
    assert found["short first"] == whole[: whole.index(short)]
    assert found["long first"] == whole[: min(start, whole.index(short))]


@needs_lm_eval
def test_the_end_of_text_ends_a_text_and_is_no_part_of_it(
    writer: GPT2JaxLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"until": [], "max_gen_toks": 24}
    (whole,) = generated(writer, ("the cat", wanted))
    # From now on the sixth of its characters is the end of text.
    monkeypatch.setattr(writer._model.tokenizer, "eot", _CHARS.encode(whole[5])[0])
    assert generated(writer, ("the cat", wanted)) == [whole[: whole.index(whole[5])]]


@needs_lm_eval
def test_sampling_is_asked_for_by_do_sample_or_a_temperature(writer: GPT2JaxLM) -> None:
    def some(**wanted: Any) -> list[str]:
        same = {"until": [], "max_gen_toks": 16} | wanted
        return generated(writer, *[("the cat", same)] * 12)

    (greedy,) = {*some()}
    assert {*some(do_sample=False, temperature=0.7, top_p=0.9)} == {greedy}
    assert {*some(temperature=0.0)} == {greedy}
    # One candidate is left: the same texts, by another path.
    assert {*some(do_sample=True, top_k=1)} == {greedy}
    assert {*some(temperature=2.0, top_p=0.0)} == {greedy}
    hot = some(temperature=2.0)
    assert len({*hot}) == 12, "copies of a request, and its batches, are drawn apart"
    assert hot == some(temperature=2.0) == some(do_sample=True, temperature=2.0)
    assert hot != some(do_sample=True)


@needs_lm_eval
def test_batches_draw_apart_and_the_seed_decides(run: Path) -> None:
    wanted = {"until": [], "max_gen_toks": 16, "do_sample": True}
    found = {
        seed: generated(GPT2JaxLM(run, batch_size=1, seed=seed), *[("a", wanted)] * 3)
        for seed in (0, 1)
    }
    assert len({*found[0], *found[1]}) == 6


@needs_lm_eval
def test_a_wrong_request_is_refused_before_any_text_is_generated(
    model: GPT2JaxLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "generate_text", None)
    with pytest.raises(UserError, match="num_beams"):
        generated(model, ("a", {"max_gen_toks": 4}), ("a", {"max_gen_toks": 4, "num_beams": 2}))
    # lm-eval's default of 256 new tokens is more than this model can hold.
    with pytest.raises(UserError, match=r"max_gen_toks=256 must .* context of 37"):
        generated(model, ("a", {}))
