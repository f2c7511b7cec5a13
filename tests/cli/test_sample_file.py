"""Tests `gpt2-jax sample --prompts FILE --out FILE`: order, resumption and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.cli.main import main
from tests.inference.tiny import make_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("sample") / "run"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [{"prompt": "x" * (i % 5), "id": i} for i in range(10)]
    lines[4] = {"prompt_tokens": [97, 98], "id": "é"}
    Path("in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def _words(model: str, *more: str) -> list[str]:
    words = ["sample", "--model", model, "--prompts", "in.jsonl", "--out", "out.jsonl"]
    return [*words, "--num_samples", "2", "--max_new_tokens", "12", "--slots", "3", *more]


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


@pytest.mark.usefixtures("folder")
def test_results_come_in_order_and_a_second_start_goes_on(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_words(model)) == 0
    out, err = capsys.readouterr()
    assert out == "out.jsonl has the results of 10 prompts, 0 of them from an earlier start\n"
    assert not err
    whole = Path("out.jsonl").read_bytes()
    results = _lines("out.jsonl")
    for line, result in zip(_lines("in.jsonl"), results, strict=True):
        samples = result.pop("samples")
        assert result == line
        assert [sample.keys() for sample in samples] == [{"text", "tokens", "finish_reason"}] * 2
        assert samples[0] != samples[1]
    cut = whole.index(b"\n", whole.index(b'"id": 6')) + 1
    for left in (whole[: cut + 7], whole[:cut], b"", whole):
        Path("out.jsonl").write_bytes(left)
        assert main(_words(model)) == 0
        assert Path("out.jsonl").read_bytes() == whole
        assert f" {left.count(bytes([10]))} of them from" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_the_first_line_is_what_its_prompt_gives(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_words(model)) == 0
    capsys.readouterr()
    words = ["sample", "--model", model, "--json", "--num_samples", "2", "--max_new_tokens", "12"]
    assert main(words) == 0
    (first, *_), alone = _lines("out.jsonl"), json.loads(capsys.readouterr().out)
    assert first["samples"] == alone["samples"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "in.jsonl line 2 must be a JSON object such as"),
        ("[1]", "in.jsonl line 2 must be a JSON object"),
        ("{}", "in.jsonl line 2 must have a prompt, or else prompt_tokens"),
        ('{"prompt": "a", "prompt_tokens": [1]}', "line 2 must have a prompt, or else"),
        ('{"prompt": 3}', "line 2: prompt must be a string"),
        ('{"prompt_tokens": "3"}', "line 2: prompt_tokens must be a list of token ids"),
        ('{"prompt": "a", "samples": 1}', "line 2 has samples, which is where results go"),
        ('{"prompt_tokens": [257]}', "token id 257 is not in the byte tokenizer's vocabulary"),
        ('{"prompt_tokens": []}', "prompts[1] is an empty list"),
        (json.dumps({"prompt": "x" * 30}), "prompt 2: prompt of 30 tokens + max_new_tokens=12"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_written(
    model: str, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    Path("in.jsonl").write_text('{"prompt": "a"}\n' + line + "\n" + '{"prompt": "b"}\n')
    assert main(_words(model)) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not Path("out.jsonl").exists()


@pytest.mark.usefixtures("folder")
def test_results_of_other_prompts_and_flags_that_do_not_go_together_are_refused(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out.jsonl").write_text('{"prompt": "other", "samples": []}\n')
    for words, message in (
        (_words(model), "--out out.jsonl line 1 is not the result of that prompt"),
        (_words(model, "--json"), "--prompts writes JSON lines to --out"),
        (_words(model)[:5], "--prompts and --out need each other"),
        (["sample", "--model", model, "--out", "a"], "--prompts and --out need each other"),
        ([*_words(model)[:4], "none", "--out", "a"], "cannot read --prompts none"),
        ([*_words(model)[:6], "none/a"], "cannot write --out none/a"),
    ):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert not out
        assert message in err
        assert err.count("\n") == 1
