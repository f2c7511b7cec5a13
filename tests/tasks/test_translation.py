"""Prompts of translation, and metrics that are sacrebleu's."""

from __future__ import annotations

from pathlib import Path

import pytest
import sacrebleu

from gpt2_jax.errors import UserError
from gpt2_jax.tasks.bootstrap import interval
from gpt2_jax.tasks.registry import make_task
from gpt2_jax.tasks.translation import Translation, ZeroShotTranslation, translation_metrics
from tests.tasks.data import PAIRS, write_pairs


def test_both_sides_of_a_prompt_begin_with_a_space(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    task = make_task("translation")
    example = task.format(task.read(tmp_path, "train")[0])
    assert example == ("English: Save the file.\nFrench:", " Enregistrez le fichier.")


def test_the_zero_shot_prompt_shows_the_first_pairs_and_ends_in_an_equals_sign(
    tmp_path: Path,
) -> None:
    write_pairs(tmp_path)
    task = ZeroShotTranslation()
    record = task.read(tmp_path, "test")[0]
    prompt, answer = task.format(record)
    lines = prompt.split("\n")
    assert lines[0] == "Save the file. = Enregistrez le fichier."
    assert len(lines) == 6 and lines[-1] == f"{PAIRS[0]['source']} ="
    assert answer == f" {PAIRS[0]['target']}"
    assert task.decoding.stop == ("\n",) and task.decoding.options.temperature == 0


def test_scores_are_those_of_sacrebleu() -> None:
    references = [pair["target"] for pair in PAIRS]
    answers = ["Enregistrez un fichier.", "Fermez la fenêtre", "Ouvrez le menu Format.", "", "a b"]
    answers += references[5:]
    bleu, chrf = translation_metrics(answers, references)
    assert bleu.value() == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    assert chrf.value() == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
    assert interval(bleu).low < bleu.value() < interval(bleu).high


def test_the_protocol_has_the_signatures() -> None:
    protocol = Translation().protocol
    assert "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" in protocol
    assert "chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:" in protocol


def test_missing_files_and_fields_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.jsonl is missing: .*source"):
        Translation().read(tmp_path, "train")
    (tmp_path / "train.jsonl").write_text('{"source": "a"}\n')
    with pytest.raises(UserError, match=r"train.jsonl is a file: name the folder"):
        Translation().read(tmp_path / "train.jsonl", "train")
    with pytest.raises(UserError, match=r"line 1: expected an object with source, target"):
        Translation().read(tmp_path, "train")
