"""Tests `gpt2-jax sample`: JSON, streams, sources of prompts, and flags that cannot be combined."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.cli import sample as verb
from gpt2_jax.cli.main import main
from gpt2_jax.cli.verb import parse
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.formats.folder_kinds import write_kind
from tests.inference.tiny import make_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("sample") / "run"))


def _out(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns the standard output of a command that succeeds and prints nothing else."""
    assert main(["sample", *words]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


def _document(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    out = _out(capsys, *words, "--json")
    assert out.count("\n") == 1
    return json.loads(out)


def test_json_has_prompt_and_samples(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model", model, "--prompt", "é\n", "--num_samples", "3", "--max_new_tokens", "29")
    document = _document(capsys, *words)
    assert document.keys() == {"prompt", "samples"}
    assert document["prompt"] == "é\n"
    assert len(document["samples"]) == 3
    for sample in document["samples"]:
        assert sample.keys() == {"text", "tokens", "finish_reason"}
        assert sample["finish_reason"] in ("stop", "length")
        assert sample["text"] == ByteTokenizer().decode(sample["tokens"])
        assert len(sample["tokens"]) == 29 or sample["tokens"][-1] == 256
    assert len({sample["text"] for sample in document["samples"]}) == 3
    assert _document(capsys, *words) == document
    assert _document(capsys, *words, "--seed", "1") != document


def test_dashes_and_underscores_are_the_same(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = _document(capsys, "--model", model, "--max_new_tokens", "20", "--num_samples=3")
    assert one == _document(capsys, "--model", model, "--max-new-tokens=20", "--num-samples", "3")


def test_a_step_of_a_run_is_a_model(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    step = str(Path(model) / "checkpoints" / "2")
    words = ("--prompt", "a", "--max_new_tokens", "20")
    assert _document(capsys, "--model", step, *words) == _document(capsys, "--model", model, *words)


def test_streamed_text_is_the_text(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in ("0", "1"):
        words = ("--model", model, "--prompt", "ab", "--max_new_tokens", "30", "--seed", seed)
        plain = _out(capsys, *words)
        assert plain.startswith("ab")
        assert _out(capsys, *words, "--stream") == plain
        assert plain == "ab" + _document(capsys, *words)["samples"][0]["text"] + "\n"


def test_several_samples_are_told_apart(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = _out(
        capsys, "--model", model, "--prompt", "é", "--num_samples", "3", "--max_new_tokens", "20"
    )
    for i in (1, 2, 3):
        assert f"--- sample {i} of 3 (" in out
    assert out.count("\né") == 3


def test_stop_ends_the_text_before_it(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model", model, "--prompt", "ab", "--max_new_tokens", "30")
    text = _document(capsys, *words)["samples"][0]["text"]
    first, second = text[8:10], text[4:6]
    sample = _document(capsys, *words, "--stop", first, "--stop", second)["samples"][0]
    assert sample["finish_reason"] == "stop"
    assert sample["text"] == text[: min(text.index(first), text.index(second))]


def test_temperature_top_k_and_top_p_reach_the_sampler(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", model, "--prompt", "ab", "--max_new_tokens", "30")
    greedy = _document(capsys, *words, "--temperature", "0")
    # Each leaves the most probable token alone, so that all three are greedy, whatever the seed.
    assert _document(capsys, *words, "--top_k", "1", "--seed", "5") == greedy
    assert _document(capsys, *words, "--top_p", "0", "--seed", "6") == greedy
    assert _document(capsys, *words) != greedy


@pytest.mark.slow
def test_min_p_penalties_biases_and_ends_reach_the_sampler(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", model, "--prompt", "ab", "--max_new_tokens", "30")

    def tokens(*flags: str) -> list[int]:
        return _document(capsys, *words, *flags)["samples"][0]["tokens"]

    greedy, drawn = tokens("--temperature", "0"), tokens()
    assert tokens("--min_p", "1") == greedy
    for flag, value in (
        ("--presence_penalty", "2"),
        ("--frequency_penalty", "2"),
        ("--repetition_penalty", "5"),
    ):
        assert len({*tokens(flag, value, "--temperature", "0.3")}) > 25, flag
    once = tokens("--temperature", "0", "--no_repeat_ngram_size", "1")
    assert len({*once, 97, 98}) == 32
    assert tokens("--logit_bias", "65=100", "--logit_bias", "256=-100") == [65] * 30
    assert tokens("--logit_bias", "256=100") == [256]
    assert tokens("--logit_bias", "256=100", "--ignore_eos") == [256] * 30
    assert tokens("--slots", "1") == drawn


@pytest.mark.slow
def test_slots_decide_how_many_are_generated_at_a_time_and_not_which(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", model, "--prompt", "ab", "--num_samples", "3", "--max_new_tokens", "20")
    assert _document(capsys, *words, "--slots", "2") == _document(capsys, *words)


def test_a_text_slides_beyond_the_context_only_if_told_to(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", model, "--prompt", "abc", "--temperature", "0", "--ignore_eos")
    slide = ("--context_overflow", "slide")
    plain = _document(capsys, *words)["samples"][0]["tokens"]
    assert len(plain) == 29
    assert _document(capsys, *words, *slide)["samples"][0]["tokens"] == plain
    (sample,) = _document(capsys, *words, *slide, "--max_new_tokens", "70")["samples"]
    assert sample["tokens"][:29] == plain
    assert len(sample["tokens"]) == 70
    # Once the text has filled the context, its last half is a prompt of its own.
    ids = ",".join(map(str, plain[-16:]))
    words = (*words[:2], *words[4:], "--prompt_tokens", ids)
    assert _document(capsys, *words)["samples"][0]["tokens"] == sample["tokens"][29:45]


def test_a_prompt_file_is_read_to_the_byte(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompt.txt"
    for prompt in ("one\n\ttwo é\n", "dos\r\nline\r"):
        path.write_bytes(prompt.encode())
        words = ("--model", model, "--max_new_tokens", "10")
        document = _document(capsys, *words, "--prompt_file", str(path))
        assert document["prompt"] == prompt
        assert document == _document(capsys, *words, "--prompt", prompt)


def test_no_prompt_starts_from_end_of_text(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = _document(capsys, "--model", model, "--temperature", "0")
    assert document["prompt"] == ""
    assert document["samples"][0]["tokens"]


def test_prompt_tokens_are_the_prompts_ids(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model", model, "--max_new_tokens", "20", "--prompt")
    by_text = _document(capsys, *words, "ab")
    document = _document(capsys, *words[:-1], "--prompt_tokens", "97, 98")
    assert document == {"prompt": "ab", "prompt_tokens": [97, 98], "samples": by_text["samples"]}
    assert _out(capsys, *words[:-1], "--prompt_tokens", "97,98") == _out(capsys, *words, "ab")


@pytest.fixture(scope="module")
def ids_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_kind("none_33", tmp_path_factory.mktemp("ids") / "model"))


def test_a_model_without_a_tokenizer_takes_and_gives_ids(
    ids_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model repeats its last token, and stops at 2."""
    words = ["sample", "--model", ids_model, "--max_new_tokens", "3"]
    greedy = [*words, "--temperature", "0"]
    for flags in ([], ["--stream"]):
        assert main([*greedy, *flags, "--prompt_tokens", "4,5"]) == 0
        out, err = capsys.readouterr()
        assert out == "4 5 5 5 5\n"
        assert err.startswith("note: this model takes and gives token ids instead of text: ")
        assert err.count("\n") == 1
    assert main([*greedy, "--json", "--prompt_tokens", "2"]) == 0
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    assert sample == {"text": "", "tokens": [2], "finish_reason": "stop"}
    _stdin(monkeypatch, b"4 5\n\nab\n")
    assert main([*greedy, "--interactive"]) == 0
    out, err = capsys.readouterr()
    assert out == "4 5 5 5 5\n 0 0 0\n"
    assert "error: --prompt_tokens must be token ids such as 1,2,3, not 'ab'" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--prompt", "ab"), "takes token ids and no text"),
        (("--prompt_tokens", "1", "--stop", "5"), "stop needs a model of text, and this one gives"),
        (("--prompt_tokens", "1,33"), "token id 33 is not in the ids tokenizer's vocabulary"),
        (("--prompt_tokens", "1,-1"), "--prompt_tokens must be token ids such as 1,2,3"),
        (("--prompt_tokens", ""), "--prompt_tokens must be token ids such as 1,2,3"),
        (("--prompt_tokens", "9" * 5000), "--prompt_tokens must be token ids such as 1,2,3"),
    ],
)
def test_a_model_without_a_tokenizer_refuses_text_and_what_is_no_id(
    ids_model: str, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert main(["sample", "--model", ids_model, "--max_new_tokens", "3", *flags]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert [line for line in err.splitlines() if not line.startswith("note: ")] == [
        line for line in err.splitlines() if line.startswith("error: ") and message in line
    ]


def _stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    # With the line ends that Python leaves as they are in a real standard input.
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="\n")
    monkeypatch.setattr(sys, "stdin", stream)


def test_interactive_answers_a_prompt_a_line_with_a_document_a_line(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", model, "--max_new_tokens", "20", "--json")
    _stdin(monkeypatch, "ab\né\r\n\r\nlast".encode())
    out = _out(capsys, *words, "--interactive")
    documents = [json.loads(line) for line in out.splitlines()]
    assert [document["prompt"] for document in documents] == ["ab", "é", "", "last"]
    for document in documents:
        assert document == _document(capsys, *words, "--prompt", document["prompt"])


def test_interactive_without_json_streams_text(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", model, "--max_new_tokens", "20")
    _stdin(monkeypatch, b"ab\nc\n")
    out = _out(capsys, *words, "--interactive")
    assert out == _out(capsys, *words, "--prompt", "ab") + _out(capsys, *words, "--prompt", "c")


def test_a_mistake_in_one_line_does_not_end_the_conversation(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stdin(monkeypatch, b"x" * 40 + b"\nab\n")
    words = ("--model", model, "--max_new_tokens", "20", "--json", "--interactive")
    assert main(["sample", *words]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["ab"]
    assert err.startswith("error: prompt of 40 tokens")
    assert err.count("\n") == 1


def test_input_that_is_not_utf8_is_a_mistake_and_not_a_crash(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _stdin(monkeypatch, b"\xff\xfe\n")
    main(["sample", "--model", model, "--max_new_tokens", "20", "--json", "--interactive"])
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "internal" not in err


def test_examples_of_the_help_parse_and_mean_what_they_show() -> None:
    for line in verb.EXAMPLES.splitlines():
        words = shlex.split(line)
        assert words[:2] == ["gpt2-jax", "sample"]
        args = parse("sample", verb, words[2:])
        # In a shell "\n" is a backslash and an n: not the end of a line.
        assert not [stop for stop in args.stop if "\\" in stop], line
