"""Tests the tasks: which requests they make, and which metrics they compute from the scores.

The file is long because every task is tested in the same way with the same fake scorer.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.evals import paper, sources
from gpt2_jax.evals.cloze import ChildrensBookTest
from gpt2_jax.evals.hellaswag import HellaSwag
from gpt2_jax.evals.lambada import Lambada, LambadaGPT2
from gpt2_jax.evals.language_modeling import read_last_twentieth
from gpt2_jax.evals.registry import make_task, task_factory
from gpt2_jax.evals.task import Setting, mean, perplexity, ratio, read_jsonl
from gpt2_jax.inference.scoring import Likelihood
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer

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
    flags = np.array([greedy] * len(logprobs))
    return Likelihood(np.array(logprobs, np.float32), flags, flags)


def _setting(folder: Path, tokenizer: Tokenizer | None = None, **changes: Any) -> Setting:
    return Setting(folder, tokenizer or ByteTokenizer(), 1024)._replace(**changes)


def test_lambada_asks_for_the_last_word_with_all_its_tokens(tmp_path: Path) -> None:
    text = "In my palm is a clear stone, and I don't care about Qahtanite"
    tokenizer = GPT2Tokenizer()
    _write(tmp_path, "lambada_test.jsonl", {"text": text})
    task = Lambada(_setting(tmp_path, tokenizer))
    ((context, (word,)),) = task.requests
    assert tokenizer.decode(word) == " Qahtanite" and len(word) > 1
    assert tokenizer.decode([*context, *word]) == text
    row = task.row(0, [_likelihood(-1.0, -2.0, greedy=True)])
    assert row == {"logprob": -3.0, "greedy": True}
    half = Likelihood(np.float32([-1, -1]), *[np.array([True, False])] * 2)
    rows = [row, task.row(0, [half])]
    metrics = task.metrics(rows)
    assert metrics["acc"] == 0.5 and metrics["acc_stderr"] == pytest.approx(0.5)
    assert metrics["perplexity"] == pytest.approx(math.exp(2.5))


def test_hellaswag_cleans_its_texts_as_lm_eval_does(tmp_path: Path) -> None:
    task = HellaSwag(_setting(_write(tmp_path, "hellaswag_val.jsonl", _SWAG)))
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
    _write(tmp_path, "hellaswag_val.jsonl", _SWAG, _SWAG | {"label": "2"})
    task = HellaSwag(_setting(tmp_path))
    # The second ending costs most, but least of all per character; the third is most probable.
    likelihoods = [_likelihood(-20.0), _likelihood(-21.0), _likelihood(-9.0), _likelihood(-30.0)]
    rows = [task.row(0, likelihoods), task.row(1, likelihoods)]
    assert rows[0] == {
        "logprobs": [-20.0, -21.0, -9.0, -30.0], "choice": 2, "choice_norm": 1, "label": 1
    }  # fmt: skip
    metrics = task.metrics(rows)
    assert (metrics["acc"], metrics["acc_norm"]) == (0.5, 0.5)


@pytest.mark.parametrize("label", [4, -1, "", "x", None, 1.5, "²"])
def test_a_label_without_an_ending_is_named_by_its_line(tmp_path: Path, label: Any) -> None:
    _write(tmp_path, "hellaswag_val.jsonl", _SWAG, _SWAG | {"label": label})
    with pytest.raises(UserError, match=r"hellaswag_val\.jsonl, line 2: no ending has the label"):
        HellaSwag(_setting(tmp_path))


def test_an_example_without_a_word_or_with_an_ending_that_is_no_text_is_named(
    tmp_path: Path,
) -> None:
    _write(tmp_path, "lambada_test.jsonl", {"text": "a b"}, {"text": " "})
    with pytest.raises(UserError, match=r"lambada_test\.jsonl, line 2: the text has no word"):
        Lambada(_setting(tmp_path))
    _write(tmp_path, "hellaswag_val.jsonl", _SWAG | {"endings": ["a", 3]})
    with pytest.raises(UserError, match=r"hellaswag_val\.jsonl, line 1: 'endings' must be strings"):
        HellaSwag(_setting(tmp_path))


def test_what_the_context_has_no_room_for_is_found_before_anything_is_scored(
    tmp_path: Path,
) -> None:
    _write(tmp_path, "lambada_test.jsonl", {"text": "a b"}, {"text": "a " + "b" * 40})
    assert len(make_task("lambada_openai", _setting(tmp_path)).requests) == 2
    with pytest.raises(UserError, match=r"example 2 of .*lambada_test\.jsonl has 41 tokens, more"):
        make_task("lambada_openai", _setting(tmp_path, context_length=32))


def test_files_that_are_missing_or_malformed_are_named(tmp_path: Path) -> None:
    for name in sources.SOURCES:
        with pytest.raises(UserError, match=r"cannot read .*: No such file"):
            task_factory(name)(_setting(tmp_path))
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


# LAMBADA as the paper has it.


def test_the_papers_lambada_scores_the_last_token_and_the_word_without_stop_words(
    tmp_path: Path,
) -> None:
    text = "He said “no” and they ate Qahtanite"
    tokenizer = GPT2Tokenizer()
    _write(tmp_path, "lambada_test.jsonl", {"text": text})
    task = LambadaGPT2(_setting(tmp_path, tokenizer))
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
    _write(tmp_path, "lambada_test.jsonl", {"text": "a b"})
    tokenizer = GPT2Tokenizer()
    excluded = {tokenizer.decode([i]) for i in LambadaGPT2(_setting(tmp_path, tokenizer)).excluded}
    assert {" the", " The", " and", " they", " of", " was"} <= excluded
    assert not {"the", " them,", " door", " Helen", ",", " ", "\n"} & excluded
    assert all(text.startswith(" ") for text in excluded) and 150 < len(excluded) < 500
    assert LambadaGPT2(_setting(tmp_path)).excluded == ()  # bytes begin no words


# The Children's Book Test.

_CBT = """\
1 There was a king .
2 `` Do n't go , '' he said .
21 `` The XXXXX is mine , '' said the fox .\tcrown\t\tcrown|dog|ox|crow
"""


def _cbt(folder: Path, text: str = _CBT, kind: str = "CN", **changes: Any) -> ChildrensBookTest:
    (folder / f"cbtest_{kind}_valid_2000ex.txt").write_text(text, encoding="utf-8")
    return ChildrensBookTest(kind, _setting(folder, **changes))


def test_the_childrens_book_test_asks_for_each_choice_with_the_rest(tmp_path: Path) -> None:
    task = _cbt(tmp_path)
    decode = ByteTokenizer().decode
    ((context, choices),) = task.requests
    assert decode(context) == 'There was a king. "Don\'t go," he said. "The'
    assert [decode(c) for c in choices] == [
        f' {word} is mine," said the fox.' for word in ("crown", "dog", "ox", "crow")
    ]
    row = task.row(0, [_likelihood(-3.0), _likelihood(-2.0), _likelihood(-9), _likelihood(-9)])
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


# Perplexity on whole texts.

_WIKI = ' \n = A Title = \n \n He didn \'t know , " she said " ; 1 @,@ 000 times . \n'


def _lm(folder: Path, name: str, text: str, **changes: Any) -> Any:
    path = folder / sources.SOURCES[name].file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return task_factory(name)(_setting(folder, **changes))


def _scored(task: Any) -> bytes:
    tokens = [token for request in task.requests for token in request.continuations[0]]
    return ByteTokenizer().decode_bytes(tokens)


def _rows(task: Any, nats_per_token: float) -> list[dict[str, Any]]:
    return [
        task.row(i, [_likelihood(*[-nats_per_token] * len(request.continuations[0]))])
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


@pytest.mark.parametrize("name", sources.SOURCES)
def test_each_entry_of_the_list_of_tasks_makes_the_task_of_its_name(
    tmp_path: Path, name: str
) -> None:
    source = sources.SOURCES[name]
    content = {
        "lambada_test.jsonl": json.dumps({"text": "a b"}),
        "hellaswag_val.jsonl": json.dumps(_SWAG),
    }
    content |= {f"cbtest_{kind}_valid_2000ex.txt": _CBT for kind in ("CN", "NE")}
    path = tmp_path / source.file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content.get(source.file, "some words of a text . \n" * 9), encoding="utf-8")
    task = make_task(name, _setting(tmp_path))
    assert (task.name, task.path) == (name, path)
    assert task.requests and task.protocol


# The paper's table.


def test_the_papers_table_is_of_tasks_that_there_are() -> None:
    assert [*sources.GROUPS["gpt2_paper"]] == list(dict.fromkeys(row.task for row in paper.TABLE))
    for row in paper.TABLE:
        better = sorted(row.figures, reverse=not row.metric.startswith("acc"))
        # Larger models are better, but for one pair.
        assert [*row.figures] == better or row.label == "CBT-CN (ACC)"
