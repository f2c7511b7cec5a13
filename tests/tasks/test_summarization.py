"""Prompts of summaries, what counts of an answer, and metrics that are rouge-score's."""

from __future__ import annotations

import pytest
from rouge_score import rouge_scorer

from gpt2_jax.tasks.summarization import Summarization, ZeroShotSummarization, rouge_metrics


def test_lines_of_a_paragraph_are_joined_and_lists_are_kept() -> None:
    document = "A tool for\ntwo things:\n * one\n * two\n\nIt is\nsmall."
    prompt, answer = Summarization().format({"document": document, "summary": "small tool"})
    assert prompt == "A tool for two things:\n * one\n * two\n\nIt is small.\nTL;DR:"
    assert answer == " small tool"


def test_a_long_document_loses_its_end_and_not_what_asks_for_the_summary() -> None:
    prompt, _ = Summarization().format({"document": "word " * 1000, "summary": "a"})
    assert len(prompt) == 1200 + len("\nTL;DR:") and prompt.endswith("\nTL;DR:")


def test_three_sentences_count_of_a_zero_shot_answer() -> None:
    task = ZeroShotSummarization()
    assert task.answer(" One v1.2 here. Two? Three! Four.") == "One v1.2 here. Two? Three!"
    assert task.answer(" no end at all") == "no end at all"
    assert task.decoding.options.top_k == 2 and task.decoding.max_new_tokens == 100


def test_scores_are_those_of_rouge_score() -> None:
    answers = ["library for parsing dates", "games", ""]
    references = ["parses dates: a library", "a game of cards", "tool"]
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    found = {metric.name: metric.value() for metric in rouge_metrics(answers, references)}
    assert list(found) == ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    for name in ("rouge1", "rougeL"):
        each = [scorer.score(r, a)[name].fmeasure for r, a in zip(references, answers, strict=True)]
        assert found[name] == pytest.approx(100 * sum(each) / 3)
