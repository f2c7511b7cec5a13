"""What costs no model: baselines of tasks, and a model's answers beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.tasks import baselines
from experiments.tasks.answers import shown
from gpt2_jax.tasks.registry import make_task
from tests.tasks.data import PAIRS, write_lines, write_pairs

SUMMARIES = [
    {"document": "A tool for tables. It is small.", "summary": "table tool"},
    {"document": "Games of cards!\nFor one player.", "summary": "card games"},
    {"document": "A library for dates, times and calendars of many kinds in all of the languages.",
     "summary": "dates"},
]  # fmt: skip


def test_words_are_replaced_and_everything_else_is_kept() -> None:
    known = [
        {"source": "save file", "target": "enregistrer fichier"},
        {"source": "open file", "target": "ouvrir fichier"},
    ]
    record = {"source": "file: Open, (file) 7!", "target": ""}
    assert baselines.dictionary(known, [record]) == ["fichier: Open, (fichier) 7!"]
    assert baselines.copied(known, [record]) == [record["source"]]


def test_the_lead_is_a_sentence_or_twelve_words() -> None:
    assert baselines.lead([], SUMMARIES)[:2] == ["A tool for tables.", "Games of cards!"]
    assert baselines.first_words([], SUMMARIES)[2].split()[-2:] == ["in", "all"]


def test_the_nearest_example_gives_its_answer() -> None:
    nearest = baselines.BASELINES["summarization"]["nearest training document"]
    asked = [{"document": "cards and games"}, {"document": "dates in a calendar of languages"}]
    assert nearest(SUMMARIES, asked) == ["card games", "dates"]


def test_a_model_is_compared_with_each_baseline(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs")
    rows = [{"index": i, "answer": f" {pair['target']}"} for i, pair in enumerate(PAIRS)]
    answers = tmp_path / "translation.jsonl"
    write_lines(answers, [{"task": "translation"}, *rows[::-1]])
    table = baselines.compare(make_task("translation"), data, answers)
    assert table["model"]["bleu"]["value"] == pytest.approx(100)
    copy = table["copy of the source"]["bleu"]
    assert copy["model_is_better_by"] == pytest.approx(100 - copy["value"])
    assert copy["of"][0] <= copy["model_is_better_by"] <= copy["of"][1] and copy["p"] < 0.01
    assert json.loads(json.dumps(table)) == table
    assert "| copy of the source |" in baselines.text(table) and "; model +" in baselines.text(
        table
    )
    write_lines(answers, [{"task": "translation"}, *rows[1:]])
    with pytest.raises(SystemExit, match="5 answers to 6 examples"):
        baselines.compare(make_task("translation"), data, answers)


def test_answers_are_shown_from_the_best_to_the_worst(tmp_path: Path) -> None:
    data, task = write_pairs(tmp_path / "pairs"), make_task("translation")
    given = [pair["target"] for pair in PAIRS[:-1]] + ["???"]
    answers = tmp_path / "translation.jsonl"
    rows = [{"index": i, "answer": text} for i, text in enumerate(given)]
    write_lines(answers, [{"task": "translation"}, *rows])
    page = shown(task, data, answers, "chrf2", 2)
    first, last = page.split("\n\n**")
    assert first.startswith("**chrf2 100.0, rank 1 of 6**") and last.startswith("chrf2 0.0, rank 6")
    assert f"- expected: {PAIRS[-1]['target']}\n- answered: ???" in last
    assert f"    English: {PAIRS[-1]['source']}\n    French:" in last
    with pytest.raises(SystemExit, match="must be one of bleu, chrf2, not rouge1"):
        shown(task, data, answers, "rouge1", 2)
