"""Tests `gpt2-jax sample --prompts FILE --out FILE`: order, resumption and mistakes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from gpt2_jax.cli import sample_file, sample_record
from gpt2_jax.cli.main import main
from gpt2_jax.errors import UserError
from gpt2_jax.inference.bulk import SLOTS
from gpt2_jax.inference.sampling import SamplingOptions
from tests.inference.tiny import make_run, tiny_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("sample") / "run"))


_PROMPTS = [{"prompt": "x" * (i % 5), "id": i} for i in range(10)]
_PROMPTS[4] = {"prompt_tokens": [97, 98], "id": "é"}
_INPUT = "".join(json.dumps(line) + "\n" for line in _PROMPTS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text(_INPUT)
    return tmp_path


@pytest.fixture(scope="module")
def results(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of all prompts, and what they were made with."""
    with pytest.MonkeyPatch.context() as patch:
        made = tmp_path_factory.mktemp("results")
        patch.chdir(made)
        Path("in.jsonl").write_text(_INPUT)
        assert main(_words(model)) == 0
    return made


@pytest.fixture
def finished(folder: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> bytes:
    """The content of out.jsonl, which lies in the current folder with its settings."""
    shutil.copytree(results, folder, dirs_exist_ok=True)
    capsys.readouterr()
    return Path("out.jsonl").read_bytes()


def _words(model: str, *more: str) -> list[str]:
    words = ["sample", "--model", model, "--prompts", "in.jsonl", "--out", "out.jsonl"]
    return [*words, "--num_samples", "2", "--max_new_tokens", "12", "--slots", "3", *more]


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def test_results_come_in_order_and_a_second_start_goes_on(
    model: str, finished: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, result in zip(_PROMPTS, _lines("out.jsonl"), strict=True):
        samples = result.pop("samples")
        assert result == line
        assert [sample.keys() for sample in samples] == [{"text", "tokens", "finish_reason"}] * 2
        assert samples[0] != samples[1]
    cut = finished.index(b"\n", finished.index(b'"id": 6')) + 1
    for left in (finished[: cut + 7], b"", finished):
        Path("out.jsonl").write_bytes(left)
        assert main(_words(model)) == 0
        assert Path("out.jsonl").read_bytes() == finished
        out, err = capsys.readouterr()
        count = left.count(b"\n")
        assert (
            out
            == f"out.jsonl has the results of 10 prompts, {count} of them from an earlier start\n"
        )
        assert not err


@pytest.mark.usefixtures("finished")
def test_the_first_line_is_what_its_prompt_gives(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_results_made_with_anything_else_are_refused(
    model: str, finished: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = finished[: finished.index(b"\n") + 1]
    Path("out.jsonl").write_bytes(begun)
    other = str(make_run(tmp_path / "other", seed=1))
    _refused(_words(model, "--seed", "3"), "were made with --seed 0, not 3: give what", capsys)
    _refused(_words(other), "made with another model, step 2 (fingerprint ", capsys)
    Path("in.jsonl").write_text(_INPUT.replace('"id": 7', '"id": 70'))
    _refused(_words(model), "made with other --prompts from line 8 on: give what they", capsys)
    Path("in.jsonl").write_text(_INPUT)
    Path("out.jsonl.settings.json").unlink()
    _refused(_words(model), "out.jsonl.settings.json does not say what they were", capsys)
    assert Path("out.jsonl").read_bytes() == begun


def test_all_that_differs_is_named(tmp_path: Path) -> None:
    config = tiny_config()
    settings = {"num_slots": None, "seed": 0, "stop": [], "options": SamplingOptions()}
    prompts = [{"prompt": "a"}, {"prompt": "b"}]

    def record(step: int = 1, ema: bool = False, lines: Any = prompts, **changes: Any) -> Any:
        model = SimpleNamespace(step=step, config=config, params={"a": jnp.full(3, step)})
        return sample_record.made_with(model, lines, settings | changes, ema=ema)

    out = tmp_path / "out"
    sample_record.write(out, record())
    sample_record.check(out, record(num_slots=SLOTS))
    for now, message in (
        (record(2), "another model, step 1 (fingerprint "),
        (record(2, ema=True), "with --ema False, not True: give"),
        (record(seed=3, num_slots=4), "with --seed 0, not 3, --slots 8, not 4: give"),
        (record(options=SamplingOptions(top_k=4)), "with --top_k 0, not 4: give"),
        (record(options=SamplingOptions(logit_bias={3: 1})), "--logit_bias [], not [[3, 1.0]]"),
        (record(stop=["x"]), "with --stop [], not ['x']: give"),
        (record(lines=[*prompts, {"prompt": "c"}]), "with 2 --prompts, not 3: give"),
        (record(lines=[prompts[0], {"prompt": "c"}]), "other --prompts from line 2 on: give"),
    ):
        with pytest.raises(UserError) as error:
            sample_record.check(out, now)
        assert message in str(error.value)
    for damaged in (b"", b"[]", b'{"model": {}}', b'{"model": 1, "flags": 2, "prompts": 3}'):
        Path(f"{out}.settings.json").write_bytes(damaged)
        with pytest.raises(UserError, match=r"out.settings.json does not say what they were made"):
            sample_record.check(out, record())


@pytest.mark.usefixtures("folder")
def test_a_byte_order_mark_is_no_part_of_the_first_prompt(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "ab"}\n')
    Path("in.txt").write_bytes(b"\xef\xbb\xbfab")
    assert main(_words(model)) == 0
    assert _lines("out.jsonl")[0]["prompt"] == "ab"
    capsys.readouterr()
    words = ["--max_new_tokens", "12", "--num_samples", "2", "--slots", "3", "--json"]
    assert main(["sample", "--model", model, "--prompt_file", "in.txt", *words]) == 0
    assert json.loads(capsys.readouterr().out) == _lines("out.jsonl")[0]


def _refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert err.count("\n") == 1


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
        _refused(words, message, capsys)


@pytest.mark.usefixtures("folder")
def test_a_second_start_with_the_same_results_is_refused_before_the_model_is_read(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("link.jsonl").symlink_to("out.jsonl")
    with sample_file.locked("out.jsonl"):
        message = f"--out out.jsonl is being written by process {os.getpid()} on host "
        _refused(_words("none"), message, capsys)
        words = ["link.jsonl" if word == "out.jsonl" else word for word in _words("none")]
        _refused(words, "--out link.jsonl is being written by process", capsys)
        assert not Path("out.jsonl").exists()
    assert main(_words(model)) == 0
    assert len(_lines("out.jsonl")) == len(_PROMPTS)
    assert not list(Path().glob(".*"))
