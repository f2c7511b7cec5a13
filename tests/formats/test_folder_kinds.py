"""Tests that each kind of folder is read as transformers reads it, or that a line says what not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.errors import UserError
from gpt2_jax.formats import huggingface
from gpt2_jax.formats.load import load, open_model, read_text_tokenizer, write_native
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.tokenizers.ids import IdsTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer, tokenizer_from_dict
from tests.formats.folder_kinds import KINDS, RECORDED, TEXTS, write_kind

_RECORDS: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
_DOCS = Path(__file__).parents[2] / "docs" / "formats.md"


class _Ours(NamedTuple):
    """Holds what this package makes of a folder: a tokenizer or an error, and the notes."""

    tokenizer: Tokenizer | None
    error: str
    notes: list[str]


def _read(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> _Ours:
    write_kind(kind, folder)
    capsys.readouterr()
    tokenizer, error = None, ""
    try:
        tokenizer = load(folder).tokenizer
    except UserError as refusal:
        error = str(refusal)
    return _Ours(tokenizer, error, capsys.readouterr().err.splitlines())


def _ends(ids: Any) -> str:
    return f"stops at {', '.join(map(str, sorted(ids)))}" if ids else "never stops"


def _row(kind: str, ours: _Ours) -> str:
    """Returns the kind's row of the table in docs/formats.md."""
    record = _RECORDS[kind]
    tokens, plain = record.get("tokens"), _RECORDS["plain"]["tokens"]
    if tokens is None:
        theirs = "no tokenizer, an error"
    elif tokens == plain:
        theirs = "GPT-2's kind of tokens"
    else:
        theirs = "other tokens" if any(map(any, tokens)) else "no token for any text"
    theirs += f"; {_ends(record['ends'])}" if "ends" in record else "; no weights, an error"
    if ours.tokenizer is None:
        here = "an error that names the file and `git lfs pull`"
    elif isinstance(ours.tokenizer, IdsTokenizer):
        here = "ids only, and a note that says why"
    elif any("is assumed" in note for note in ours.notes):
        here = "GPT-2's tokens, and a note"
    else:
        here = "the same" + (", and a note" if ours.notes else "")
    return f"| {KINDS[kind][0]} | {theirs} | {here} |"


_GREEDY = SamplingOptions(temperature=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_read_as_by_transformers_or_a_line_says_what_not(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, ours = _RECORDS[kind], _read(kind, tmp_path, capsys)
    assert _row(kind, ours) in _DOCS.read_text(encoding="utf-8").splitlines()
    if ours.tokenizer is None:
        assert "is a Git LFS pointer" in ours.error and "git lfs pull" in ours.error
        return
    assert sorted(ours.tokenizer.ends) == record["ends"]
    if isinstance(record["start"], int):
        assert ours.tokenizer.bos == record["start"]
    assert tokenizer_from_dict(ours.tokenizer.to_dict()).to_dict() == ours.tokenizer.to_dict()
    if isinstance(ours.tokenizer, IdsTokenizer):
        (note,) = ours.notes
        assert note.startswith("note: this model takes and gives token ids instead of text: ")
        assert str(tmp_path) in note
        with pytest.raises(UserError, match="takes token ids and no text"):
            ours.tokenizer.encode("a")
        return
    if any("is assumed" in note for note in ours.notes):
        assert ours.tokenizer.vocab_size == 50257
    else:
        assert [ours.tokenizer.encode(text) for text in TEXTS] == record["tokens"]
    text, eos = record["eos_token"]
    if record["tokens"][0] and eos not in record["ends"]:
        assert any(repr(text) in note for note in ours.notes), ours.notes


_EXPORTED = [
    "added_eos", "map_strings", "map_dicts", "decoder_eos", "config_list", "generation_list",
    "generation_only", "null_eos", "other_bos", "more_specials", "padded",
]  # fmt: skip


@pytest.mark.parametrize("kind", _EXPORTED)
def test_ends_and_tokens_survive_both_formats(kind: str, tmp_path: Path) -> None:
    model = load(write_kind(kind, tmp_path / "original"))
    if kind == "config_list":
        write_native(tmp_path / "native", model)
        model = load(tmp_path / "native")
    (tmp_path / "again").mkdir()
    huggingface.write(tmp_path / "again", model.config.model, model.params, model.tokenizer)
    again = load(tmp_path / "again")
    assert again.tokenizer.to_dict() == model.tokenizer.to_dict()
    for name in ("config.json", "generation_config.json"):
        written = json.loads((tmp_path / "again" / name).read_text())
        ends = written["eos_token_id"]
        ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
        assert ends == _RECORDS[kind]["ends"]
        assert written["bos_token_id"] == _RECORDS[kind]["start"]
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_an_export_of_a_model_of_ids_is_one_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its size is GPT-2's, whose tokenizer must not be assumed on the way back."""
    model = load(write_kind("gpt2_vocab_alone", tmp_path / "model"))
    (tmp_path / "again").mkdir()
    capsys.readouterr()
    huggingface.write(tmp_path / "again", model.config.model, model.params, model.tokenizer)
    assert "note: no tokenizer is written, because" in capsys.readouterr().err
    with open_model(tmp_path / "again") as reader:
        assert reader.tokenizer.name == "ids" and reader.tokenizer.ends == {50256}


def test_generation_stops_at_every_end(tmp_path: Path) -> None:
    """The model repeats its last token, so that a prompt of one id shows whether it is an end."""
    model = LanguageModel(load(write_kind("generation_list", tmp_path)))
    for token in (0, 13, 299, 14, 298):
        (sample,) = model.generate([token], max_new_tokens=3, options=_GREEDY)
        if token in _RECORDS["generation_list"]["ends"]:
            assert (sample.tokens, sample.finish_reason, sample.text) == ([token], "stop", "")
        else:
            assert (sample.tokens, sample.finish_reason) == ([token] * 3, "length")


@pytest.mark.parametrize("value", ["0", 1.5, [0, "1"], True, {"id": 0}, [[0]]])
def test_an_end_that_is_no_id_is_refused(tmp_path: Path, value: Any) -> None:
    write_kind("generation_list", tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(
        UserError, match=r"eos_token_id=.* is neither a token id nor a list"
    ) as error:
        load(tmp_path)
    assert "generation_config.json" in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_generation_config_is_refused(tmp_path: Path) -> None:
    write_kind("plain", tmp_path)
    path = tmp_path / "generation_config.json"
    for text, message in [("3", "is not a JSON object"), ("{", "is not JSON")]:
        path.write_text(text)
        with pytest.raises(UserError) as error:
            load(tmp_path)
        assert f"{path} {message}" in str(error.value) and "\n" not in str(error.value)


_DAMAGED = [
    ("added_tokens.json", {"<stop>": "300"}, "its id an integer"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "is not a table of tokens"),
    ("special_tokens_map.json", [], "special_tokens_map.json is not a JSON object"),
    ("tokenizer.json", {}, "tokenizer.json: it has no 'model'"),
    ("tokenizer.json", {"model": {"vocab": {"a": 0}}}, "tokenizer.json: it has no 'merges'"),
    (
        "tokenizer.json",
        {"model": {"vocab": {"a": 0}, "merges": [["a", "b"]]}},
        "tokenizer.json: pre_tokenizer=null is not supported",
    ),
    ("tokenizer.json", {"model": []}, "its entries do not have the form of a tokenizer's"),
]


@pytest.mark.parametrize(("name", "content", "message"), _DAMAGED)
def test_a_model_with_a_damaged_tokenizer_takes_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: Any, message: str
) -> None:
    write_kind("plain", tmp_path)
    for text, expected in [(json.dumps(content), message), ("{", f"{name} is not JSON")]:
        (tmp_path / name).write_text(text)
        tokenizer = load(tmp_path).tokenizer
        assert isinstance(tokenizer, IdsTokenizer) and tokenizer.ends == {0}
        (note,) = capsys.readouterr().err.splitlines()
        assert note.startswith("note: this model takes and gives token ids instead of text: ")
        assert expected in note and str(tmp_path) in note


def test_an_id_that_the_model_does_not_have_is_not_left_out_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kind("plain", tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [0, 300], "bos_token_id": 9999}))
    tokenizer = load(tmp_path).tokenizer
    assert tokenizer.bos == 0 and tokenizer.ends == {0}
    start, end = sorted(capsys.readouterr().err.splitlines())
    assert start.startswith(
        f"note: {path}: bos_token_id=9999 is not used where it is no id of this"
    )
    assert end.startswith(f"note: {path}: eos_token_id=[0, 300] is not used where it is no id")


def test_a_converted_model_without_a_tokenizer_does_not_speak_of_the_original(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = write_kind("none_33", tmp_path / "original")
    write_native(tmp_path / "native", load(original))
    shutil.rmtree(original)
    capsys.readouterr()
    tokenizer = load(tmp_path / "native").tokenizer
    (note,) = capsys.readouterr().err.splitlines()
    assert "made without a tokenizer" in note and "convert the original model again" in note
    assert str(original) not in note and isinstance(tokenizer, IdsTokenizer)
    with pytest.raises(UserError, match=r"\(this checkpoint was made without a tokenizer: "):
        tokenizer.encode("a")
    assert tokenizer.ends == {2}


_OTHERS = [
    ("added_tokens.json", {"<|endoftext|>": 4}, "has another id in a file beside it"),
    ("tokenizer_config.json", {"tokenizer_class": "BloomTokenizer"}, "tokenizer_class="),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.b"]}}, "auto_map names"),
]


@pytest.mark.parametrize(("name", "content", "message"), _OTHERS)
def test_what_cannot_be_imitated_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: Any, message: str
) -> None:
    write_kind("plain", tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    assert isinstance(load(tmp_path).tokenizer, IdsTokenizer)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["plain", "unknown_eos"])
def test_reading_the_tokenizer_of_another_program_starts_no_devices(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> NoReturn:
        raise AssertionError("started the devices")

    with open_model(write_kind(kind, tmp_path / kind)) as reader:
        expected = reader.tokenizer.to_dict()
    monkeypatch.setattr(jax, "devices", start)
    monkeypatch.setattr(jax, "process_index", start)
    assert read_text_tokenizer(tmp_path / kind).to_dict() == expected
