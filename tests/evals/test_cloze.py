"""Tests the Children's Book Test: its contexts and choices, and the questions that it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.evals.cloze import ChildrensBookTest
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.evals.task_files import CBT_STORY, likelihood, setting


def _cbt(
    folder: Path, text: str = CBT_STORY, kind: str = "CN", **changes: Any
) -> ChildrensBookTest:
    (folder / f"cbtest_{kind}_valid_2000ex.txt").write_text(text, encoding="utf-8")
    return ChildrensBookTest(kind, setting(folder, **changes))


def test_the_childrens_book_test_asks_for_each_choice_with_the_rest(tmp_path: Path) -> None:
    task = _cbt(tmp_path)
    decode = ByteTokenizer().decode
    ((context, choices),) = task.requests
    assert decode(context) == 'There was a king. "Don\'t go," he said. "The'
    assert [decode(c) for c in choices] == [
        f' {word} is mine," said the fox.' for word in ("crown", "dog", "ox", "crow")
    ]
    row = task.row(0, [likelihood(-3.0), likelihood(-2.0), likelihood(-9), likelihood(-9)])
    assert row == {"logprobs": [-3.0, -2.0, -9.0, -9.0], "choice": 1, "answer": 0}
    assert task.metrics([row, row | {"choice": 0}])["acc"] == 0.5
    (raw,) = _cbt(tmp_path, detokenize=False).requests
    assert decode(raw.context) == "There was a king . `` Do n't go , '' he said . `` The"
    assert decode(raw.continuations[1]) == " dog is mine , '' said the fox ."


def test_context_and_choices_are_the_tokens_of_the_whole_text(tmp_path: Path) -> None:
    tokenizer = GPT2Tokenizer()
    ((context, choices),) = _cbt(tmp_path, tokenizer=tokenizer).requests
    for choice in choices:
        whole = tokenizer.decode([*context, *choice])
        assert tokenizer.encode(whole) == [*context, *choice]


def test_a_blank_at_the_beginning_leaves_the_story_as_context(tmp_path: Path) -> None:
    text = "1 He ran .\n2 XXXXX sat .\tBob\t\tAnn|Bob\n\n1 XXXXX ran .\tBob\t\tAnn|Bob\n"
    first, second = _cbt(tmp_path, text, "NE").requests
    assert ByteTokenizer().decode(first.context) == "He ran."
    assert ByteTokenizer().decode(first.continuations[1]) == " Bob sat."
    assert second.context == (256,)  # the end of text: there is no story


@pytest.mark.parametrize(
    "line",
    [
        *("2 no blank\tBob\t\tAnn|Bob", "2 XXXXX ran\tEve\t\tAnn|Bob", "2 XXXXX ran\tAnn\t\tAnn"),
        *(
            "2 XXXXX ran\tBob",
            "2 XXXXX ran\t",
            "2 XXXXX\tBob\t\tBob|Bob",
            "2 XXXXX\tBob\t\tBob||Ann",
        ),
    ],
)
def test_a_question_that_is_none_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(
        UserError, match=r"cbtest_CN_valid_2000ex\.txt, line 2: expected a sentence"
    ):
        _cbt(tmp_path, f"1 He ran .\n{line}\n")
    with pytest.raises(UserError, match="has no questions"):
        _cbt(tmp_path, "1 He ran .\n\n")
