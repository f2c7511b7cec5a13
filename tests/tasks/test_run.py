"""From examples to a prepared folder, and from a model to answers and their scores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.data.examples import open_examples
from gpt2_jax.data.meta import read_meta
from gpt2_jax.tokenizers.tokenizer import tokenizer_from_dict
from tests.inference.tiny import make_run, tiny_config
from tests.tasks.data import PAIRS, write_lines, write_pairs

TASK = """
from gpt2_jax.tasks.base import Decoding, Example, Task, average, read_split

class Spelling(Task):
    name = "spelling"
    protocol = "letters that are right"
    decoding = Decoding(max_new_tokens=%s)
    def read(self, folder, split):
        return read_split(folder, split, ("word", "spelled"))
    def format(self, record):
        return Example(record["word"] + ":", record["spelled"])
    def score(self, records, answers):
        right = [a == r["spelled"] for r, a in zip(records, answers)]
        lengths = [len(a) for a in answers]
        return [average("right", right), average("length", lengths)]

TASK = Spelling()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("tasks") / "run", tiny_config()))


@pytest.fixture
def task(tmp_path: Path) -> str:
    (tmp_path / "spelling.py").write_text(TASK % "6")
    words = ["stone", "a", "river", "house" * 8]
    for split in ("train", "test"):
        write_lines(
            tmp_path / "words" / f"{split}.jsonl",
            [{"word": word, "spelled": word[::-1]} for word in words],
        )
    return str(tmp_path / "spelling.py")


def _evaluated(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["eval", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_task_in_a_file_is_answered_and_scored(
    run: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    data = str(tmp_path / "words")
    words = ("--model", run, "--tasks", task, "--data", data, "--out", str(out))
    report = _evaluated(capsys, *words)
    found = report["tasks"]["spelling"]
    assert report["protocols"] == {"spelling": "letters that are right"}
    assert found["count"] == 4 and found["cut_prompts"] == 1 and found["max_new_tokens"] == 6
    assert 0 <= found["right"] <= 1 and found["length_low"] <= found["length"]
    lines = (out / "spelling.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[1:]]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    ended = [row["ended"] for row in rows]
    assert found["ended"] == sum(ended) / 4
    assert all(row["tokens"] <= 6 and (row["ended"] or row["tokens"] == 6) for row in rows)
    # Answers of an earlier start are taken as they are, and the rest is generated again.
    (out / "spelling.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:5])
    assert _evaluated(capsys, *words)["tasks"]["spelling"] == found
    assert (out / "spelling.jsonl").read_text().splitlines() == lines
    assert main(["eval", *words, "--split", "train"]) == 2
    assert "has results of another protocol" in capsys.readouterr().err
    assert main(["eval", *words, "--limit", "2"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"spelling +examples +2\n", table)
    assert "spelling          length" in table and "95 %: " in table and "_low" not in table


def test_answers_to_other_prompts_are_not_taken_for_answers_to_these(
    run: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", run, "--tasks", task, "--data", str(tmp_path / "words"))
    words += ("--out", str(tmp_path / "out"))
    _evaluated(capsys, *words)
    Path(task).write_text((TASK % "6").replace('":"', '"="'))
    assert main(["eval", *words]) == 2
    assert "has results of another protocol" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('record["word"]', 'record["ward"]', r"spelling.py, line 11: KeyError: 'ward'"),
        (
            "return Example",
            "return str and (lambda *_: 'text')",
            r"spelling: format must return an Example, not str",
        ),
        ('"right", right', '"right", right[1:]', r"spelling: 'right' has 3 values for 4 answers"),
        ('"length"', '"right"', r"two metrics are called 'right': choose other names"),
        ("return [average", "return 'ab' or [average", r"score must return a list of Metric"),
    ],
)
def test_mistakes_in_the_file_of_a_task_are_named(
    run: str,
    task: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    right: str,
    wrong: str,
    message: str,
) -> None:
    Path(task).write_text((TASK % "6").replace(right, wrong))
    data = str(tmp_path / "words")
    assert main(["eval", "--model", run, "--tasks", task, "--data", data]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_two_tasks_of_one_name_and_data_of_another_task_are_refused_at_once(
    run: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again.py"
    again.write_text(TASK % "5")
    words = ["eval", "--model", run, "--data", str(tmp_path / "words"), "--tasks"]
    assert main([*words, f"{task},{again}"]) == 2
    assert "two tasks or texts are called spelling" in capsys.readouterr().err
    assert main([*words, f"{task},summarization"]) == 2
    printed = capsys.readouterr().err
    assert "expected an object with document, summary" in printed and "4 of 4" not in printed


def test_the_most_tokens_follow_from_the_answers_to_train_on(
    run: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(task).write_text(TASK % "None")
    data = tmp_path / "words"
    words = ("--model", run, "--tasks", task, "--data", str(data))
    assert main(["eval", *words]) == 2
    # The 99th percentile of 6, 2, 6 and 41 bytes, with their ends, is 39.95.
    assert "answers of up to 48 tokens leave no room" in capsys.readouterr().err
    (data / "train.jsonl").unlink()
    assert main(["eval", *words]) == 2
    assert "train.jsonl is missing" in capsys.readouterr().err


def test_prepare_makes_what_fine_tuning_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = str(write_pairs(tmp_path / "pairs")), tmp_path / "out"
    words = ["prepare", "--task", "translation", "--input", data, "--out", str(out)]
    assert main([*words, "--tokenizer", "bpe:300", "--workers", "1"]) == 0
    meta = read_meta(out)
    assert meta is not None and meta["splits"]["val"]["documents"] == 2
    tokenizer = tokenizer_from_dict(meta["tokenizer"])
    assert tokenizer.name == "bpe" and 258 < tokenizer.vocab_size <= 300
    train, _ = open_examples(out, "pairs")
    tokens = train.tokens.read(0, int(train.stops[0])).tolist()
    prompt = tokens[: int(train.answers[0])]
    assert tokenizer.decode(prompt) == f"English: {PAIRS[0]['source']}\nFrench:"
    assert tokens[len(prompt) : -1] == tokenizer.encode(f" {PAIRS[0]['target']}")
    assert tokens[-1] == tokenizer.eot
    assert main([*words, "--tokenizer", "bpe:300", "--workers", "1"]) == 0
    assert "already prepared" in capsys.readouterr().out
    assert main([*words, "--tokenizer", "byte"]) == 2
    assert "already holds other data" in capsys.readouterr().err


def test_a_fraction_is_taken_evenly_from_the_training_examples(tmp_path: Path) -> None:
    data, out = str(write_pairs(tmp_path / "pairs")), tmp_path / "out"
    words = ["prepare", "--task", "translation", "--input", data, "--out", str(out)]
    assert main([*words, "--tokenizer", "byte", "--fraction", "0.17"]) == 0
    train, val = open_examples(out, "pairs")
    assert (len(train), len(val)) == (3, 2)  # of 18, every sixth
    assert len(set(train.digests.tolist())) == 1


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--fields", "prompt:a,answer:b"), "--fields prompt:a,answer:b does not apply to --task"),
        (("--fraction", "0"), "--fraction must be above 0 and at most 1, not 0"),
        (("--skip_invalid",), "--skip_invalid does not apply to --task translation"),
        (("--tokenizer", "char"), "the char tokenizer has no end of text"),
        (("--tokenizer", "bpe:x"), "must be from 258 to 65536"),
    ],
)
def test_flags_that_do_not_fit_a_task_are_refused(
    flags: tuple[str, ...], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_pairs(tmp_path / "pairs"))
    words = ["prepare", "--task", "translation", "--input", data, "--out", str(tmp_path / "out")]
    assert main([*words, *flags]) == 2
    assert problem in capsys.readouterr().err and not (tmp_path / "out").exists()
