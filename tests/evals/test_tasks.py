"""The tasks: what they ask of a model, and what they make of its answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax.data.tokenizer import ByteTokenizer, GPT2Tokenizer
from gpt2_jax.errors import UserError
from gpt2_jax.evals.hellaswag import HellaSwag
from gpt2_jax.evals.lambada import Lambada
from gpt2_jax.evals.scoring import Likelihood
from gpt2_jax.evals.task import mean, perplexity, read_jsonl

_SWAG = {
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man [step] is  sitting on a roof.",
    "ctx_b": "he",
    "endings": ["falls. [title] Then", "is ripping level tiles off.", "sings.", "is [x] gone."],
    "label": 1,
}


def _write(folder: Path, name: str, *rows: Any) -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def _likelihood(*logprobs: float, greedy: bool = False) -> Likelihood:
    return Likelihood(np.array(logprobs, np.float32), np.array([greedy] * len(logprobs)))


def test_lambada_asks_for_the_last_word_with_all_its_tokens(tmp_path: Path) -> None:
    text = "In my palm is a clear stone, and I don't care about Qahtanite"
    task = Lambada(_write(tmp_path, "lambada_test.jsonl", {"text": text}))
    tokenizer = GPT2Tokenizer()
    ((context, (word,)),) = task.requests(tokenizer, 1024)
    assert tokenizer.decode(word) == " Qahtanite" and len(word) > 1
    assert tokenizer.decode([*context, *word]) == text
    row = task.row(0, [_likelihood(-1.0, -2.0, greedy=True)])
    assert row == {"logprob": -3.0, "greedy": True}
    half = Likelihood(np.float32([-1, -1]), np.array([True, False]))
    rows = [row, task.row(0, [half])]
    metrics = task.metrics(rows)
    assert metrics["acc"] == 0.5 and metrics["acc_stderr"] == pytest.approx(0.5)
    assert metrics["perplexity"] == pytest.approx(math.exp(2.5))


def test_hellaswag_cleans_its_texts_as_lm_eval_does(tmp_path: Path) -> None:
    task = HellaSwag(_write(tmp_path, "hellaswag_val.jsonl", _SWAG))
    tokenizer = ByteTokenizer()
    ((context, endings),) = task.requests(tokenizer, 1024)
    assert tokenizer.decode(context) == "Roof shingle removal: A man is sitting on a roof. He"
    assert [tokenizer.decode(ending) for ending in endings] == [
        " falls.. Then",
        " is ripping level tiles off.",
        " sings.",
        " is gone.",
    ]


def test_hellaswag_chooses_by_probability_and_by_probability_per_character(tmp_path: Path) -> None:
    task = HellaSwag(_write(tmp_path, "hellaswag_val.jsonl", _SWAG, _SWAG | {"label": "2"}))
    # The second ending costs most, but least of all per character; the third is most probable.
    likelihoods = [_likelihood(-20.0), _likelihood(-21.0), _likelihood(-9.0), _likelihood(-30.0)]
    rows = [task.row(0, likelihoods), task.row(1, likelihoods)]
    assert rows[0] == {
        "logprobs": [-20.0, -21.0, -9.0, -30.0], "choice": 2, "choice_norm": 1, "label": 1
    }  # fmt: skip
    metrics = task.metrics(rows)
    assert (metrics["acc"], metrics["acc_norm"]) == (0.5, 0.5)


@pytest.mark.parametrize("label", [4, -1, "", "x", None, 1.5])
def test_a_label_without_an_ending_is_named_by_its_line(tmp_path: Path, label: Any) -> None:
    _write(tmp_path, "hellaswag_val.jsonl", _SWAG, _SWAG | {"label": label})
    with pytest.raises(UserError, match=r"hellaswag_val\.jsonl, line 2: no ending has the label"):
        HellaSwag(tmp_path)


def test_files_that_are_missing_or_malformed_are_named(tmp_path: Path) -> None:
    for task in (Lambada, HellaSwag):
        with pytest.raises(UserError, match=r"can't read .*\.jsonl"):
            task(tmp_path)
    path = tmp_path / "x.jsonl"
    for content in ("{", "[1]", '"text"', "{}", '{"text": 3}', "\n"):
        path.write_text('{"text": "fine"}\n' + content + "\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"x\.jsonl, line 2"):
            list(read_jsonl(path, {"text": str}))
    path.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.jsonl is empty"):
        list(read_jsonl(path, {"text": str}))
    path.write_text('{"text": "one\u2028line\x85"}\n{"text": "two"}', encoding="utf-8")
    found = [row["text"] for row in read_jsonl(path, {"text": str})]
    assert found == ["one\u2028line\x85", "two"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"can't read .*x\.jsonl"):
        list(read_jsonl(path, {"text": str}))


def test_means_and_perplexities_have_their_standard_errors() -> None:
    values = [0.0, 1.0, 1.0, 1.0]
    found = mean("acc", values)
    assert found["acc"] == 0.75
    # That of a proportion, with n - 1 in place of n.
    assert found["acc_stderr"] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    found = perplexity([1.0, 3.0])
    assert found["perplexity"] == pytest.approx(math.exp(2))
    assert found["perplexity_stderr"] == pytest.approx(math.exp(2) * 1.0)
    assert math.isnan(mean("acc", [1.0])["acc_stderr"])
