"""Tests perplexity on whole texts: what is scored, in which windows, per word, byte and token."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.evals import sources
from gpt2_jax.evals.language_modeling import read_last_twentieth
from gpt2_jax.evals.registry import task_factory
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.evals.task_files import likelihood, setting

_WIKI = ' \n = A Title = \n \n He didn \'t know , " she said " ; 1 @,@ 000 times . \n'


def _lm(folder: Path, name: str, text: str, **changes: Any) -> Any:
    path = folder / sources.SOURCES[name].file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return task_factory(name)(setting(folder, **changes))


def _scored(task: Any) -> bytes:
    tokens = [token for request in task.requests for token in request.continuations[0]]
    return ByteTokenizer().decode_bytes(tokens)


def _rows(task: Any, nats_per_token: float) -> list[dict[str, Any]]:
    return [
        task.row(i, [likelihood(*[-nats_per_token] * len(request.continuations[0]))])
        for i, request in enumerate(task.requests)
    ]


def test_words_and_bytes_are_the_originals_whatever_is_done_to_the_text(tmp_path: Path) -> None:
    detokenized = _lm(tmp_path, "wikitext2", _WIKI)
    raw = _lm(tmp_path, "wikitext2", _WIKI, detokenize=False)
    assert _scored(detokenized) == b'\n= A Title =\n\nHe didn\'t know, "she said"; 1,000 times.\n'
    assert _scored(raw) == _WIKI.encode()
    words = len(_WIKI.split()) + 4  # the ends of lines
    for task in (detokenized, raw):
        # The same probability of the whole text gives the same perplexity of a word and a byte.
        total = 300.0
        metrics = task.metrics(_rows(task, total / len(_scored(task))))
        assert metrics["word_perplexity"] == pytest.approx(math.exp(total / words))
        bits = total / math.log(2) / len(_WIKI.encode())
        assert metrics["bits_per_byte"] == pytest.approx(bits)
        per_token = math.exp(total / len(_scored(task)))
        assert metrics["token_perplexity"] == pytest.approx(per_token)
    assert "our invertible detokenizer" in detokenized.protocol
    assert "the text as it is" in raw.protocol


@pytest.mark.parametrize("stride", [None, 1, 5, 16])
def test_windows_score_all_of_a_text_once(tmp_path: Path, stride: int | None) -> None:
    task = _lm(tmp_path, "ptb", " no it was n't \n yes \n" * 9, stride=stride, context_length=16)
    assert _scored(task) == b"no it wasn't\nyes\n" * 9
    assert task.requests[0].context == (256,)
    metrics = task.metrics(_rows(task, 2.0))
    assert metrics["token_perplexity"] == pytest.approx(math.exp(2))
    wanted = f"stride {stride}" if stride and stride < 16 else "no overlap"
    assert wanted in task.protocol
    # A part of the text: words and bytes in proportion, so that equal costs stay equal.
    part = task.metrics(_rows(task, 2.0)[:3])
    for name in ("word_perplexity", "bits_per_byte"):
        assert part[name] == pytest.approx(metrics[name])
    with pytest.raises(UserError, match="--stride must be between 1 and the model's context of 16"):
        _lm(tmp_path, "ptb", "a", stride=17, context_length=16)


def test_sentences_in_no_order_are_scored_by_themselves(tmp_path: Path) -> None:
    task = _lm(tmp_path, "lm1b", "One .\nTwo , too .\n")
    assert [request.context for request in task.requests] == [(256,), (256,)]
    decode = ByteTokenizer().decode
    texts = [decode(request.continuations[0]) for request in task.requests]
    assert texts == ["One.\n", "Two, too.\n"]
    metrics = task.metrics(_rows(task, 1.0))
    assert metrics["word_perplexity"] == pytest.approx(math.exp(15 / 8))


def test_enwik8_is_the_last_twentieth_without_halves_of_characters(tmp_path: Path) -> None:
    text = "é" * 200  # 400 bytes; with one in front, both cuts fall into a character
    path = tmp_path / "x"
    path.write_bytes(b"a" + text.encode()[:-1])
    assert len(path.read_bytes()) == 400
    assert read_last_twentieth(path) == "é" * 9
    task = _lm(tmp_path, "text8", "abcd " * 40)
    assert _scored(task) == b"abcd abcd "
    assert "word_perplexity" not in task.metrics(_rows(task, 1.0))
    assert task.metrics(_rows(task, math.log(2)))["bits_per_byte"] == pytest.approx(1)
    for content, problem in (
        (b"", "fewer than 20 bytes"),
        (b"a" * 90 + b"\xff" * 10, "invalid"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=problem):
            read_last_twentieth(path)
