"""Tests `generation_kwargs`: which settings they give, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.evals.generation import Generation, batch_rows, parse
from gpt2_jax.inference.sampling import SamplingOptions

_GREEDY = SamplingOptions(temperature=0.0)


@pytest.mark.lm_eval
def test_what_lm_eval_writes_in_many_ways_is_one_thing() -> None:
    same = Generation(("a", "b", "<end>"), 9, _GREEDY)
    ways: list[dict[str, Any]] = [
        {"max_gen_toks": 9},
        {"max_new_tokens": 9, "do_sample": False},
        {"max_tokens": "9", "temperature": 0.0},
        {"max_gen_toks": 9, "do_sample": False, "temperature": 0.7, "top_p": 0.95, "top_k": 3},
        {"max_completion_tokens": 9, "num_beams": 1, "repetition_penalty": 1.0},
    ]
    for way in ways:
        assert parse({"until": ["a", "b"], **way}, 100, "<end>") == same
    assert parse({"until": "a", "max_gen_toks": 9}, 100, "") == Generation(("a",), 9, _GREEDY)
    assert parse({"until": ["", "a"]}, 300, "") == Generation(("a",), 256, _GREEDY)


@pytest.mark.lm_eval
def test_sampling_keeps_what_it_is_told() -> None:
    def options(**wanted: Any) -> SamplingOptions:
        return parse({"max_gen_toks": 9, **wanted}, 100, "").options

    assert options(do_sample=True) == SamplingOptions()
    assert options(temperature=0.5) == SamplingOptions(temperature=0.5)
    assert options(do_sample=True, temperature=0.0) == _GREEDY
    wanted = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}
    assert options(do_sample=True, **wanted) == SamplingOptions(**wanted)
    wanted = {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3}
    assert options(**wanted, min_p=0.1) == SamplingOptions(temperature=0, **wanted)
    with pytest.raises(UserError, match="top_k must be"):
        options(do_sample=True, top_k=-2)


@pytest.mark.lm_eval
def test_settings_that_generation_lacks_are_named() -> None:
    for wanted in ({"num_beams": 4}, {"max_length": 20}, {"length_penalty": 1.2}):
        with pytest.raises(UserError, match=f"no setting {next(iter(wanted))}; it has: until"):
            parse({"max_gen_toks": 4, **wanted}, 100, "")
    for wanted, count in (({}, 256), ({"max_gen_toks": 100}, 100), ({"max_gen_toks": 0}, 0)):
        with pytest.raises(UserError, match=rf"max_gen_toks={count} must .* context of 100"):
            parse(wanted, 100, "")


def test_stop_strings_cut_one_after_the_other() -> None:
    def cut(*stop: str) -> str:
        return Generation(stop, 1, _GREEDY).cut("xabcdabc")

    assert cut() == "xabcdabc"
    assert cut("d") == "xabc"
    assert cut("bc", "abc") == "xa"
    assert cut("abc", "bc") == "x"
    assert cut("no", "da") == "xabc"


def test_as_many_prompts_go_together_as_have_two_gigabytes_of_caches() -> None:
    # GPT-2 XL: 48 layers of keys and values of 1,600, 1,024 positions, two bytes each: 300 MiB.
    xl = Config(model=ModelConfig(num_layers=48, d_model=1600, num_heads=25))
    assert batch_rows("auto", None, xl) == 6
    assert batch_rows("auto:3", 4, xl) == 4
    small = Config()
    assert batch_rows("auto", None, small) == 56 and batch_rows("auto", 100, small) == 56
    huge = Config(model=ModelConfig(num_layers=1000, d_model=10000, num_heads=10))
    assert batch_rows("auto", None, huge) == 1
    assert batch_rows(3, None, huge) == batch_rows("3", 2, huge) == 3
    for wrong in (0, -1, "many", "", 1.5, "auto:x"):
        with pytest.raises(UserError, match="batch_size must be an integer of at least 1, or auto"):
            batch_rows(wrong, None, small)  # pyright: ignore[reportArgumentType]
