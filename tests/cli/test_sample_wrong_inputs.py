"""Tests the mistakes that `gpt2-jax sample` refuses: models, flags, and prompts that do not fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.cli import sample, sampling_flags
from gpt2_jax.cli.verb import parse
from gpt2_jax.config import arguments
from gpt2_jax.errors import UserError
from gpt2_jax.serve import completions
from gpt2_jax.serve.errors import ApiError
from tests.cli.refusals import refused

_SAMPLE = ("sample", "--model", "run", "--max_new_tokens", "4")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "missing"), "no model at missing"),
        (("--model", "text.txt"), "text.txt is not a model"),
        (("--model", "data"), "data is not a model"),
        (("--prompt", "a"), "--model"),
        ((*_SAMPLE[1:], "--prompt", "a", "--prompt_file", "text.txt"), "not allowed with"),
        ((*_SAMPLE[1:], "--prompt", "a", "--interactive"), "not allowed with"),
        ((*_SAMPLE[1:], "--stream", "--json"), "--stream and --json exclude each other"),
        ((*_SAMPLE[1:], "--stream", "--num_samples", "2"), "--stream shows one sample"),
        ((*_SAMPLE[1:], "--num_samples", "0"), "--num_samples must be between 1 and 10000"),
        ((*_SAMPLE[1:], "--num_samples", str(10**30)), "--num_samples must be between 1 and 10000"),
        (
            (*_SAMPLE[1:], "--temperature", "-1"),
            "--temperature must be between 0 and 2, not -1",
        ),
        ((*_SAMPLE[1:], "--temperature", "nan"), "temperature must be"),
        ((*_SAMPLE[1:], "--temperature", "warm"), "invalid float value: 'warm'"),
        ((*_SAMPLE[1:], "--temperature", "2.1"), "--temperature must be between 0 and 2, not 2.1"),
        ((*_SAMPLE[1:], "--top_k", "-2"), "--top_k must be at least -1, not -2"),
        ((*_SAMPLE[1:], "--top_p", "1.5"), "top_p must be between 0 and 1"),
        ((*_SAMPLE[1:], "--min_p", "1.5"), "min_p must be between 0 and 1"),
        ((*_SAMPLE[1:], "--presence_penalty", "3"), "presence_penalty must be between -2 and 2"),
        ((*_SAMPLE[1:], "--frequency_penalty", "-3"), "frequency_penalty must be between -2 and 2"),
        ((*_SAMPLE[1:], "--repetition_penalty", "0"), "repetition_penalty must be above 0"),
        ((*_SAMPLE[1:], "--no_repeat_ngram_size", "-1"), "no_repeat_ngram_size must be at least 0"),
        ((*_SAMPLE[1:], "--logit_bias", "3"), "--logit_bias must be ID=BIAS such as 256=-100"),
        ((*_SAMPLE[1:], "--logit_bias", "a=3"), "--logit_bias must be ID=BIAS"),
        ((*_SAMPLE[1:], "--logit_bias=-1=3"), "--logit_bias must be ID=BIAS"),
        ((*_SAMPLE[1:], "--logit_bias", "1=x"), "--logit_bias must be ID=BIAS"),
        ((*_SAMPLE[1:], "--logit_bias", "1=nan"), "logit_bias[1] must be finite"),
        ((*_SAMPLE[1:], "--logit_bias", "1=200"), "logit_bias[1] must be between -100 and 100"),
        ((*_SAMPLE[1:], "--logit_bias", "1=2", "--logit_bias", "01=3"), "names token 1 twice"),
        ((*_SAMPLE[1:], "--slots", "0"), "--slots must be between 1 and 10000, not 0"),
        ((*_SAMPLE[1:], "--context_overflow", "wrap"), "invalid choice: 'wrap'"),
        ((*_SAMPLE[1:], "--seed", "-1"), "--seed must be between 0 and 4294967295"),
        ((*_SAMPLE[1:], "--stop", ""), "--stop must not be empty"),
        ((*_SAMPLE[1:], "--prompt_file", "missing.txt"), "missing.txt"),
        ((*_SAMPLE[1:], "--prompt_file", "data"), "--prompt_file data"),
        ((*_SAMPLE[1:], "--prompt_file", "latin1.txt"), "latin1.txt is not UTF-8"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_sample_refuses(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    Path("latin1.txt").write_bytes("café".encode("latin-1"))
    assert message in refused(house, capsys, "sample", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompt", "x" * 40), ["40 tokens", "context of 32"]),
        (("--prompt", "x" * 32), ["32 tokens", "context of 32"]),
        (
            ("--prompt", "x" * 20, "--max_new_tokens", "13"),
            [
                "20 tokens",
                "max_new_tokens=13",
                "lower max_new_tokens, or",
                "--context_overflow slide",
            ],
        ),
        (("--max_new_tokens", "0"), ["max_new_tokens must be at least 1"]),
        (("--max_new_tokens", "-3"), ["max_new_tokens must be at least 1"]),
        # What a shell passes on that is no UTF-8.
        (("--prompt", "a\udcff"), ["surrogate"]),
        (("--seed", str(2**64)), ["seed"]),
        (("--logit_bias", "257=1"), ["token id 257 of logit_bias", "from 0 to 256"]),
        (
            ("--prompt", "x" * 32, "--max_new_tokens", "9", "--context_overflow", "slide"),
            ["32 tokens", "context of 32"],
        ),
        (("--top_k", str(2**40), "--prompt", "x" * 40), ["40 tokens"]),
    ],
)
@pytest.mark.parametrize("mode", ["--json", "--stream"])
def test_sample_refuses_what_does_not_fit_the_model(
    model: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: list[str],
    mode: str,
) -> None:  # fmt: skip
    err = refused(Path(model), capsys, "sample", "--model", model, mode, *words)
    assert all(part in err for part in message), err


@pytest.mark.parametrize("name", arguments.SAMPLING_RANGES)
def test_sample_and_the_server_take_the_same_numbers(name: str) -> None:
    field = next(field for field in completions.FIELDS if field.name == name)
    is_integer = field.schema["type"] == "integer"

    def ends_in_an_error(call: Callable[[], Any], error: type[Exception]) -> bool:
        try:
            call()
        except error:
            return True
        return False

    for end in filter(math.isfinite, arguments.SAMPLING_RANGES[name]):
        for value in (end - 1, end - 1e-6, end, end + 1e-6, end + 1):
            number = int(value) if is_integer else float(value)
            refused = ends_in_an_error(lambda n=number: field.check(name, n), ApiError)
            args = parse("sample", sample, ["--model", "m", f"--{name}={number}"])
            same = ends_in_an_error(lambda a=args: sampling_flags.options(a), UserError) == refused
            assert same, number
