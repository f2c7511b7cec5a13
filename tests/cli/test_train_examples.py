"""Tests `gpt2-jax train`, `eval` and `prepare` on files of examples, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from tests.cli.refusals import TRAIN, refused

_GOOD = "".join(
    json.dumps({"prompt": f"say {i}: ", "answer": str(i) * 2}) + "\n" for i in range(40)
).encode()
_LINE = b'{"prompt": "p", "answer": "a"}\n'


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the cache out of the folder in which nothing may change."""
    monkeypatch.setenv("GPT2_JAX_EXAMPLES", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "qa.jsonl has no examples"),
        (b"\n\n", "qa.jsonl has no examples"),
        (_LINE, "qa.jsonl has only one example"),
        (_GOOD + b"nonsense\n", "qa.jsonl, line 41, is not JSON"),
        (_GOOD + b"[1]\n", "line 41, begins a JSON array"),
        (_GOOD + b'"p"\n', "line 41, is 'p': each line must be an object"),
        (_LINE + b'{"prompt": "p"}\n', "line 2, has no field 'answer'"),
        (_LINE + b'{"answer": "p"}\n', "line 2, has no field 'prompt'"),
        (_LINE + b'{"prompt": 1, "answer": "a"}\n', "line 2, has 1 as 'prompt', which must be"),
        (_LINE + b'{"prompt": "p", "answer": null}\n', "line 2, has None as 'answer'"),
        (_LINE + b'{"prompt": "p", "answer": ""}\n', "line 2, has an empty answer"),
        (_LINE + b'{"text": ""}\n', "line 2, has an empty 'text'"),
        (_LINE + b'{"text": "t", "prompt": "p"}\n', "line 2, has no field 'answer'"),
        (_LINE + b'{"prompt": "\xff", "answer": ""}\n', "line 2, is not UTF-8 at its byte 12"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "is a Git LFS pointer"),
        (b'{"prompt": "p", "answer": "%s"}\n' % (b"a" * 99) * 9, "no example fits"),
    ],
)
def test_bad_examples_are_refused_in_one_line(
    house: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    Path("qa.jsonl").write_bytes(content)
    said = _refused_after_notes(house, capsys, *TRAIN, "--config.data.path=qa.jsonl")
    assert message in said
    if "no example fits" not in message:
        prepare = ("prepare", "--format", "examples", "--input", "qa.jsonl", "--out", "new")
        again = _refused_after_notes(house, capsys, *prepare, "--tokenizer", "byte")
        assert message.replace("qa.jsonl has", "--input qa.jsonl has") in again


def _refused_after_notes(house: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns the error of a command that printed only notes of its progress before it."""
    before = sorted(house.rglob("*"))
    assert main(words) == 2
    out, err = capsys.readouterr()
    *notes, error = err.splitlines()
    assert not out
    assert error.startswith("error: ")
    assert len(error) <= 400
    assert not any("Traceback" in note or note.startswith("error") for note in notes)
    assert sorted(house.rglob("*")) == before
    return error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*TRAIN, "--config.data.path=gone.jsonl"), "there is no file of examples gone.jsonl"),
        ((*TRAIN, "--config.data.path=other"), "other has no train.jsonl, but test.jsonl"),
        ((*TRAIN, "--config.data.path=valid"), "valid: rename valid.jsonl to val.jsonl"),
        (
            (*TRAIN, "--config.data.path=data", "--config.data.fields=prompt:a,answer:b"),
            "has no effect, because data has no examples",
        ),
        ((*TRAIN, "--config.data.fields=question"), "data.fields='question'"),
        ((*TRAIN, "--config.data.fields=prompt:a"), "does not name the field of the answer"),
        ((*TRAIN, "--config.data.fields=prompt:a,answer:a"), "names one field as prompt and"),
        (
            (*TRAIN, "--config.data.path=qa.jsonl", "--config.data.tokenizer=char"),
            "the char tokenizer has no end of text",
        ),
        (("prepare", "--input", "qa.jsonl", "--out", "n", "--fields", "a"), "--format examples"),
        (
            ("prepare", "--format", "examples", "--corpus", "x", "--out", "n"),
            "--corpus x does not apply",
        ),
        (
            ("prepare", "--format", "examples", "--input", "text.txt", "--out", "n"),
            "is not named *.jsonl",
        ),
    ],
)
def test_mistakes_are_refused(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    Path("qa.jsonl").write_bytes(_GOOD)
    Path("other").mkdir()
    Path("other", "test.jsonl").write_bytes(_GOOD)
    Path("valid").mkdir()
    for name in ("train", "valid"):
        Path("valid", f"{name}.jsonl").write_bytes(_GOOD)
    if "--config.data.path" not in " ".join(words) and words[0] == "train":
        words = (*words, "--config.data.path=qa.jsonl")
    assert message in refused(house, capsys, *words)


def test_a_number_that_is_not_reported_is_refused_before_training(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("qa.jsonl").write_bytes(_GOOD)
    words = (*TRAIN, "--config.data.path=qa.jsonl", "--config.checkpoint.best=eval/los")
    assert "validations report no eval/los" in _refused_after_notes(house, capsys, *words)


def test_lengths_are_refused_after_the_file_was_read(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("qa.jsonl").write_bytes(_GOOD)
    words = (*TRAIN, "--config.data.path=qa.jsonl", "--config.eval.context_lengths=16")
    assert "eval.context_lengths=16: qa.jsonl has examples" in _refused_after_notes(
        house, capsys, *words
    )


@pytest.mark.slow
def test_a_run_on_examples_and_tokens_trains_and_is_evaluated(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("qa.jsonl").write_bytes(_GOOD)
    data = ("--config.data.path=none", "--config.data.mixture=qa.jsonl=0.5,data=0.5")
    quiet = "--config.eval.sample_tokens=0"
    assert main([*TRAIN, *data, "--dry_run"]) == 0
    assert main([*TRAIN, *data, quiet]) == 0
    _, err = capsys.readouterr()
    assert "qa.jsonl: 36 examples to train on" in err
    lines = [json.loads(line) for line in Path("new/metrics.jsonl").read_text().splitlines()]
    (validated,) = [line for line in lines if "eval/loss" in line]
    both = [validated["eval/qa.jsonl/loss"], validated["eval/data/loss"]]
    assert validated["eval/loss"] == pytest.approx(sum(both) / 2, rel=1e-5)
    assert main(["eval", "--model", "new", "--validation", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)["tasks"]["validation"]
    assert scored["loss"] == pytest.approx(validated["eval/loss"], rel=1e-4)
    words = ("eval", "--model", "new", "--validation", "--context_length", "16")
    assert main(words) == 2
    assert "omit --context_length" in capsys.readouterr().err
