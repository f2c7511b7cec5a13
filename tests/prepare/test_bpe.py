"""A byte-pair encoding that is trained on the corpus that it encodes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tokenizers

from gpt2_jax.cli.main import main
from gpt2_jax.data.meta import read_meta
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.bpe import train_bpe, train_named
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.tokenizers.huggingface import read_tokenizer, write_tokenizer
from gpt2_jax.tokenizers.tokenizer import tokenizer_from_dict

CORPUS = [Path(json.__file__).read_text(encoding="utf-8"), "naïve café, naïve 漢字"]
UNSEEN = ["", " ", "unseen 12 words\n\n  and 漢字 🎉", "<|endoftext|>", "don't", "\x00\t\r\n"]


@pytest.fixture(scope="module")
def trained():
    return train_bpe(CORPUS, 400)


def test_every_text_comes_back(trained) -> None:
    for text in [*CORPUS, *UNSEEN]:
        tokens = trained.encode(text)
        assert trained.decode(tokens) == text and trained.eot not in tokens
    assert trained.vocab_size == 400 and trained.eot == 0
    assert len(trained.encode(CORPUS[0])) < 0.6 * len(CORPUS[0])


def test_tokens_are_those_of_the_tokenizers_package(trained, tmp_path: Path) -> None:
    write_tokenizer(trained, tmp_path, 32)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*CORPUS, *UNSEEN]:
        if "<|endoftext|>" not in text:  # which that package takes for the token
            assert trained.encode(text) == theirs.encode(text).ids
    ours = read_tokenizer(tmp_path, trained.vocab_size, eos_token_id=0)
    assert ours.to_dict() == trained.to_dict()


def test_the_same_corpus_gives_the_same_tokenizer(trained) -> None:
    again = train_named("bpe:400", iter(CORPUS))
    assert again.to_dict() == trained.to_dict()
    rebuilt = tokenizer_from_dict(json.loads(json.dumps(trained.to_dict())))
    assert rebuilt.to_dict() == trained.to_dict()


def test_prepare_keeps_the_tokenizer_with_the_tokens(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("".join(CORPUS), encoding="utf-8")
    words = ["prepare", "--input", str(text), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main([*words, "--tokenizer", "bpe:300"]) == 0
    meta = read_meta(tmp_path / "out")
    assert meta is not None and meta["vocab_size"] == 300
    tokenizer = tokenizer_from_dict(meta["tokenizer"])
    train = open_tokens(tmp_path / "out", "train", val_fraction=0.0)
    assert "".join(CORPUS).startswith(tokenizer.decode(train.read(1, 50).tolist()))
    assert main([*words, "--tokenizer", "bpe:300"]) == 0
    assert main([*words, "--tokenizer", "bpe:301"]) == 2


def test_a_text_with_fewer_pairs_than_ids_is_remarked_on(tmp_path: Path, capsys) -> None:
    text = tmp_path / "a.txt"
    text.write_text("abab " * 9, encoding="utf-8")
    words = ["prepare", "--input", str(text), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main([*words, "--tokenizer", "bpe:4096"]) == 0
    printed = capsys.readouterr()
    assert "note: the vocabulary has 26" in printed.err and " ids, not 4,096: no" in printed.err


def test_a_size_out_of_range_and_too_little_text_are_refused(tmp_path: Path) -> None:
    for name in ("bpe:", "bpe:257", "bpe:65537", "bpe:-300", "bpe:4k"):
        with pytest.raises(UserError, match=f"{name}: the size .* from 258 to 65536, such as"):
            prepare([], name, tmp_path / "out")
    with pytest.raises(UserError, match="too little text"):
        train_bpe(["ab"], 300)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"--tokenizer bpe:N needs the tasks extra: pip install"):
        train_bpe(CORPUS, 300)
