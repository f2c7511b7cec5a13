"""Tests HellaSwag: how it cleans its texts, which ending it chooses, which labels it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.evals.hellaswag import HellaSwag
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.evals.task_files import HELLASWAG_LINE, likelihood, setting, write_lines


def test_hellaswag_cleans_its_texts_as_lm_eval_does(tmp_path: Path) -> None:
    task = HellaSwag(setting(write_lines(tmp_path, "hellaswag_val.jsonl", HELLASWAG_LINE)))
    tokenizer = ByteTokenizer()
    ((context, endings),) = task.requests
    assert tokenizer.decode(context) == "Roof shingle removal: A man is sitting on a roof. He"
    assert [tokenizer.decode(ending) for ending in endings] == [
        " falls.. Then",
        " is ripping level tiles off.",
        " sings.",
        " is gone.",
    ]


def test_hellaswag_chooses_by_probability_and_by_probability_per_character(tmp_path: Path) -> None:
    write_lines(tmp_path, "hellaswag_val.jsonl", HELLASWAG_LINE, HELLASWAG_LINE | {"label": "2"})
    task = HellaSwag(setting(tmp_path))
    # The second ending costs most, but least of all per character; the third is most probable.
    likelihoods = [likelihood(-20.0), likelihood(-21.0), likelihood(-9.0), likelihood(-30.0)]
    rows = [task.row(0, likelihoods), task.row(1, likelihoods)]
    assert rows[0] == {
        "logprobs": [-20.0, -21.0, -9.0, -30.0], "choice": 2, "choice_norm": 1, "label": 1
    }  # fmt: skip
    metrics = task.metrics(rows)
    assert (metrics["acc"], metrics["acc_norm"]) == (0.5, 0.5)


@pytest.mark.parametrize("label", [4, -1, "", "x", None, 1.5, "²"])
def test_a_label_without_an_ending_is_named_by_its_line(tmp_path: Path, label: Any) -> None:
    write_lines(tmp_path, "hellaswag_val.jsonl", HELLASWAG_LINE, HELLASWAG_LINE | {"label": label})
    with pytest.raises(UserError, match=r"hellaswag_val\.jsonl, line 2: no ending has the label"):
        HellaSwag(setting(tmp_path))
