"""Tests that tokenizer files in Hugging Face's format are read, written, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers import vocabulary
from gpt2_jax.tokenizers.bpe import BPETokenizer, GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.huggingface import read_tokenizer, write_tokenizer
from gpt2_jax.tokenizers.tokenizer import tokenizer_from_dict

_FIXTURES = Path(__file__).parents[1] / "formats" / "fixtures" / "huggingface"
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def plain() -> BPETokenizer:
    tokenizer = read_tokenizer(_FIXTURES / "plain", 300, 0)
    assert isinstance(tokenizer, BPETokenizer)
    return tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(_FIXTURES / "plain" / name, tmp_path)
    return tmp_path


def test_tokens_are_those_of_the_tokenizers_library(plain: BPETokenizer) -> None:
    """The tokens were recorded with `split_special_tokens`: a literal end of text is text."""
    expected = json.loads((_FIXTURES / "plain_tokens.json").read_text())
    assert len(expected) == 3
    for text, tokens in expected.items():
        assert plain.encode(text) == tokens
        assert plain.decode(tokens) == text
    assert (plain.name, plain.vocab_size, plain.eot) == ("bpe", 300, 0)


@settings(max_examples=100, deadline=None)
@given(text=_TEXT)
def test_decode_inverts_encode(plain: BPETokenizer, text: str) -> None:
    tokens = plain.encode(text)
    assert plain.decode(tokens) == text
    assert plain.eot not in tokens
    assert plain.byte_lengths()[tokens].sum() == len(text.encode())


def test_a_vocabulary_survives_json(plain: BPETokenizer) -> None:
    again = tokenizer_from_dict(json.loads(json.dumps(plain.to_dict())))
    assert again.to_dict() == plain.to_dict()
    assert again.encode("It is a truth") == plain.encode("It is a truth")
    assert plain.encode_array("abc").dtype == np.uint16


@pytest.mark.parametrize(
    "tokenizer",
    [
        ByteTokenizer(),
        GPT2Tokenizer(),
        pytest.param(GPT2Tokenizer(50304), marks=pytest.mark.slow),
        CharTokenizer("\n ab\u00e9\u4e16"),
    ],
    ids=lambda t: f"{t.name}{t.vocab_size}",
)
def test_written_files_are_read_back(tokenizer: Any, tmp_path: Path) -> None:
    write_tokenizer(tokenizer, tmp_path, 32)
    again = read_tokenizer(tmp_path, tokenizer.vocab_size, tokenizer.eot)
    assert again.to_dict() == tokenizer.to_dict()
    assert type(again) is type(tokenizer)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == (vocabulary.END_OF_TEXT if tokenizer.eot is not None else None)


def test_another_vocabulary_comes_back_as_itself(plain: BPETokenizer, tmp_path: Path) -> None:
    write_tokenizer(plain, tmp_path, 32)
    assert read_tokenizer(tmp_path, 300, 0).to_dict() == plain.to_dict()
    wider = read_tokenizer(tmp_path, 310, 0)
    assert wider.vocab_size == 310 and wider.decode([305, 41, 309]) == plain.decode([41])
    assert wider.byte_lengths()[300:].sum() == 0


def test_files_of_gpt2_give_gpt2(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes(vocabulary.gpt2_file("encoder.json"))
    (tmp_path / "merges.txt").write_bytes(vocabulary.gpt2_file("vocab.bpe"))
    tokenizer = read_tokenizer(tmp_path, 50257, 50256)
    assert tokenizer.to_dict() == {"name": "gpt2"}
    merges = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    ours = [" ".join(pair) for pair in vocabulary.merges(vocabulary.gpt2_vocabulary())]
    assert ours == merges


def test_a_folder_without_files_has_gpt2s_if_the_size_is(tmp_path: Path) -> None:
    lines: list[str] = []
    assumed = read_tokenizer(tmp_path, 50257, 50256, log=lines.append)
    assert assumed.to_dict() == {"name": "gpt2"}
    assert lines == [
        f"note: {tmp_path} has no tokenizer files, but as many token ids as GPT-2 (50257): GPT-2's "
        "tokenizer is assumed"
    ]
    assert read_tokenizer(tmp_path, 50304, 50256).vocab_size == 50304
    for size in (50256, 50305, 300):
        with pytest.raises(UserError, match=r"has neither tokenizer\.json"):
            read_tokenizer(tmp_path, size)


def test_the_end_of_text_is_what_the_config_says_or_its_usual_name(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"].append({"id": 300, "content": "<stop>", "special": True})
    path.write_text(json.dumps(content))
    assert read_tokenizer(folder, 301, 300).eot == 300
    assert read_tokenizer(folder, 301, [300, 0]).eot in (0, 300)
    assert read_tokenizer(folder, 301, 50256).eot == 0
    assert read_tokenizer(folder, 301, None).eot == 0
    assert read_tokenizer(folder, 301, 300).decode([300]) == "<stop>"


def _model(content: dict[str, Any], **changes: Any) -> None:
    content["model"].update(changes)


def _merge(content: dict[str, Any], *pairs: list[str]) -> None:
    """Appends merges and their tokens."""
    for pair in pairs:
        content["model"]["merges"].append(pair)
        content["model"]["vocab"]["".join(pair)] = len(content["model"]["vocab"])


_BERT = {"type": "TemplateProcessing", "special_tokens": {"[CLS]": {}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: _model(c, type="WordPiece"), "a WordPiece tokenizer is not supported"),
        (lambda c: _model(c, byte_fallback=True), "byte_fallback"),
        (lambda c: _model(c, dropout=0.1), "dropout"),
        (lambda c: _model(c, ignore_merges=True), "ignore_merges"),
        (
            lambda c: c["added_tokens"].append({"id": 299, "content": "foo", "special": False}),
            "added token 'foo' is not supported, because it is not special",
        ),
        (lambda c: _merge(c, ["~", "|"], ["|", "^"], ["~", "|^"]), "token of other pairs"),
        (lambda c: c.update(normalizer={"type": "NFC"}), "normalizer"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer"),
        (lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "pre_tokenizer"),
        (lambda c: c.update(pre_tokenizer=None), "pre_tokenizer"),
        (lambda c: c.update(post_processor=_BERT), "post_processor"),
        (lambda c: c["model"]["merges"].reverse(), "must be in the order of their tokens' ids"),
        (lambda c: c["model"]["merges"].append(["a", "\u00e9"]), "which has no id"),
        (lambda c: c["model"]["merges"].append("abc"), "do not have the form"),
        (lambda c: c["model"]["vocab"].pop("a"), "has no token for the byte"),
        (lambda c: c["model"]["vocab"].update(b="one"), "must be different integers"),
        (
            lambda c: c["model"]["vocab"].update(b=c["model"]["vocab"]["a"]),
            "must be different integers",
        ),
        (lambda c: c["model"]["vocab"].update(b=-1), "must be different integers"),
        (lambda c: c.pop("model"), "it has no 'model'"),
    ],
)
def test_other_tokenizers_are_refused_by_name(folder: Path, change: Any, message: str) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_tokenizer(folder, 310, 0)
    assert message in str(error.value)
    assert "tokenizer.json" in str(error.value) and "\n" not in str(error.value)


def test_damaged_files_give_one_line(folder: Path) -> None:
    for content in ("{", "[]", '"text"', "", "\x00", "[" * 100_000):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            read_tokenizer(folder, 300, 0)


def test_more_tokens_than_rows_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="do not fit in a vocabulary of 299 ids"):
        read_tokenizer(folder, 299, 0)


def test_characters_out_of_order_are_refused(tmp_path: Path) -> None:
    write_tokenizer(CharTokenizer("abc"), tmp_path, 32)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    for vocab in ({"b": 0, "a": 1, "c": 2}, {"a": 0, "b": 1, "cd": 2}, {"a": 0, "b": 1}):
        content["model"]["vocab"] = vocab
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="single characters"):
            read_tokenizer(tmp_path, 3)
    write_tokenizer(CharTokenizer("abc"), tmp_path, 32)
    with pytest.raises(UserError, match="single characters"):
        read_tokenizer(tmp_path, 2**62)
