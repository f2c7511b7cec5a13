"""Tests what tasks share: reading their files, and means and rates with standard errors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.evals import sources
from gpt2_jax.evals.hellaswag import HellaSwag
from gpt2_jax.evals.lambada import Lambada
from gpt2_jax.evals.registry import task_factory
from gpt2_jax.evals.task import mean, perplexity, ratio, read_jsonl
from tests.evals.task_files import HELLASWAG_LINE, setting, write_lines


def test_an_example_without_a_word_or_with_an_ending_that_is_no_text_is_named(
    tmp_path: Path,
) -> None:
    write_lines(tmp_path, "lambada_test.jsonl", {"text": "a b"}, {"text": " "})
    with pytest.raises(UserError, match=r"lambada_test\.jsonl, line 2: the text has no word"):
        Lambada(setting(tmp_path))
    write_lines(tmp_path, "hellaswag_val.jsonl", HELLASWAG_LINE | {"endings": ["a", 3]})
    with pytest.raises(UserError, match=r"hellaswag_val\.jsonl, line 1: 'endings' must be strings"):
        HellaSwag(setting(tmp_path))


def test_files_that_are_missing_or_malformed_are_named(tmp_path: Path) -> None:
    for name in sources.SOURCES:
        with pytest.raises(UserError, match=r"cannot read .*: No such file"):
            task_factory(name)(setting(tmp_path))
    path = tmp_path / "x.jsonl"
    for content in ("{", "[1]", '"text"', "{}", '{"text": 3}', "\n{}", "[" * 9000):
        path.write_text('{"text": "fine"}\n' + content + "\n", encoding="utf-8")
        with pytest.raises(
            UserError, match=r"x\.jsonl, line [23](: expected an obj|: 'text'| is not JSON)"
        ):
            list(read_jsonl(path, {"text": str}))
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\n{"text": "b"}\n\n')
    assert [row["text"] for row in read_jsonl(path, {"text": str})] == ["a", "b"]
    path.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.jsonl is empty"):
        list(read_jsonl(path, {"text": str}))
    path.write_text('{"text": "one\u2028line\x85"}\n{"text": "two"}', encoding="utf-8")
    found = [row["text"] for row in read_jsonl(path, {"text": str})]
    assert found == ["one\u2028line\x85", "two"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot read .*x\.jsonl"):
        list(read_jsonl(path, {"text": str}))


def test_means_and_perplexities_have_their_standard_errors() -> None:
    values = [0.0, 1.0, 1.0, 1.0]
    found = mean("acc", values)
    assert found["acc"] == 0.75
    # That of a proportion, with n - 1 in place of n.
    assert found["acc_stderr"] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert perplexity(800, 1)["perplexity"] == math.inf
    found = perplexity(*ratio([1.0, 3.0], [1, 1]))
    assert found["perplexity"] == pytest.approx(math.exp(2))
    assert found["perplexity_stderr"] == pytest.approx(math.exp(2) * 1.0)
    assert math.isnan(mean("acc", [1.0])["acc_stderr"])


def test_a_rate_weighs_its_pairs_by_their_units() -> None:
    assert ratio([2.0, 4.0, 6.0], [1, 2, 3]) == (2.0, 0.0)
    value, error = ratio([1.0, 5.0], [1, 3])
    assert value == 1.5 and error == pytest.approx(math.sqrt(2 * (0.5**2 + 0.5**2)) / 4)
