"""Tests LAMBADA: which words it asks for, in lm-eval's form and in the paper's, and its metrics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax.evals.lambada import Lambada, LambadaGPT2
from gpt2_jax.inference.scoring import Likelihood
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from tests.evals.task_files import likelihood, setting, write_lines


def test_lambada_asks_for_the_last_word_with_all_its_tokens(tmp_path: Path) -> None:
    text = "In my palm is a clear stone, and I don't care about Qahtanite"
    tokenizer = GPT2Tokenizer()
    write_lines(tmp_path, "lambada_test.jsonl", {"text": text})
    task = Lambada(setting(tmp_path, tokenizer))
    ((context, (word,)),) = task.requests
    assert tokenizer.decode(word) == " Qahtanite" and len(word) > 1
    assert tokenizer.decode([*context, *word]) == text
    row = task.row(0, [likelihood(-1.0, -2.0, greedy=True)])
    assert row == {"logprob": -3.0, "greedy": True}
    half = Likelihood(np.float32([-1, -1]), *[np.array([True, False])] * 2)
    rows = [row, task.row(0, [half])]
    metrics = task.metrics(rows)
    assert metrics["acc"] == 0.5 and metrics["acc_stderr"] == pytest.approx(0.5)
    assert metrics["perplexity"] == pytest.approx(math.exp(2.5))


# LAMBADA as the paper has it.


def test_the_papers_lambada_scores_the_last_token_and_the_word_without_stop_words(
    tmp_path: Path,
) -> None:
    text = "He said “no” and they ate Qahtanite"
    tokenizer = GPT2Tokenizer()
    write_lines(tmp_path, "lambada_test.jsonl", {"text": text})
    task = LambadaGPT2(setting(tmp_path, tokenizer))
    ((context, (word,)),) = task.requests
    assert tokenizer.decode(context) == '\nHe said "no" and they ate'
    assert tokenizer.decode(word) == " Qahtanite" and len(word) > 2
    yes, no = True, False

    def row(greedy: list[bool], allowed: list[bool]) -> dict[str, Any]:
        logprobs = np.float32([-5, -4, -3])
        return task.row(0, [Likelihood(logprobs, np.array(greedy), np.array(allowed))])

    assert row([no, no, yes], [yes, no, yes]) == {"logprob": -3, "greedy": yes, "filtered": no}
    assert row([no, yes, yes], [yes, no, no]) == {"logprob": -3, "greedy": yes, "filtered": yes}
    assert row([yes, yes, no], [no, yes, yes]) == {"logprob": -3, "greedy": no, "filtered": no}
    metrics = task.metrics([row([no, no, yes], [no] * 3), row([no] * 3, [no] * 3)])
    assert (metrics["acc"], metrics["acc_filtered"]) == (0.5, 0)
    assert metrics["perplexity"] == pytest.approx(math.exp(3))


def test_stop_words_are_excluded_where_they_begin_a_word(tmp_path: Path) -> None:
    write_lines(tmp_path, "lambada_test.jsonl", {"text": "a b"})
    tokenizer = GPT2Tokenizer()
    excluded = {tokenizer.decode([i]) for i in LambadaGPT2(setting(tmp_path, tokenizer)).excluded}
    assert {" the", " The", " and", " they", " of", " was"} <= excluded
    assert not {"the", " them,", " door", " Helen", ",", " ", "\n"} & excluded
    assert all(text.startswith(" ") for text in excluded) and 150 < len(excluded) < 500
    assert LambadaGPT2(setting(tmp_path)).excluded == ()  # bytes begin no words
