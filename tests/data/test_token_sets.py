"""The folders of a config: their vocabulary, and shards that differ from their checksums."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.config import Config, load_config
from gpt2_jax.data.token_sets import open_sets, resolve_vocab_size
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document
from tests.runs import CONFIG


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(CONFIG.format(data="one"))
    for name in ("one", "two"):
        prepare([Document(name, f"{name} fish " * 100)], "byte", name, tokens_per_shard=300)
    return tmp_path


def _config(*flags: str) -> Config:
    return load_config("tiny.py", flags)


_MIXTURE = ("data.path=none", "data.mixture=one=1,two=1")


def _swap_two_tokens(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4:-2], content[-2:] = content[-2:], content[-4:-2]
    path.write_bytes(content)


@pytest.mark.parametrize("shard", ["train_000000.bin", "train_000001.bin", "val_000000.bin"])
@pytest.mark.parametrize(("path", "flags"), [("one", ()), ("two", _MIXTURE)])
def test_a_change_that_only_the_checksum_shows_is_refused_on_request(
    folder: Path, capsys: pytest.CaptureFixture[str], path: str, flags: tuple[str, ...], shard: str
) -> None:
    sets = open_sets(_config(*flags), check_sums=True)
    _swap_two_tokens(folder / path / shard)
    assert open_sets(_config(*flags)).fingerprint == sets.fingerprint
    capsys.readouterr()
    words = ["train", "--config", "tiny.py", "--workdir", "new", "--check_sha256"]
    assert main([*words, *(f"--config.{flag}" for flag in flags)]) == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {path}/{shard} is damaged, because its sha256 ")
    assert all(line.startswith("comparing the sha256") for line in progress)
    assert not Path("new").exists()


def test_shards_without_checksums_are_refused_before_any_is_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("two")
    Path("two").mkdir()
    np.zeros(1000, np.uint16).tofile("two/train.bin")
    flags = [f"--config.{flag}" for flag in _MIXTURE]
    words = ["train", "--config", "tiny.py", "--workdir", "new"]
    assert main([*words, *flags, "--check_sha256"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: --check_sha256: two has no meta.json with checksums")
    assert errors.count("\n") == 1 and not Path("new").exists()


def test_a_dry_run_checks_no_checksums(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "tiny.py", "--dry_run", "--check_sha256"]) == 2
    assert "a dry run reads no data" in capsys.readouterr().err


# The vocabulary. The config file sets 257 ids, those of the byte tokenizer.


def _unset(*flags: str) -> Config:
    return _config("model.vocab_size=none", *flags)


def test_an_unset_vocabulary_is_that_of_the_data(folder: Path) -> None:
    prepare([Document("letters", "abcabd" * 100)], "char", "letters")
    assert resolve_vocab_size(_unset()).model.vocab_size == 257
    letters = resolve_vocab_size(_unset("data.path=letters", "data.tokenizer=char"))
    assert letters.model.vocab_size == 4 and open_sets(letters).tokenizer.vocab_size == 4
    assert resolve_vocab_size(_unset(*_MIXTURE)).model.vocab_size == 257


def test_an_unset_vocabulary_without_data_is_that_of_the_tokenizer(folder: Path) -> None:
    nowhere = "data.path=nowhere"
    assert resolve_vocab_size(_unset(nowhere)).model.vocab_size == 257
    gpt2 = _unset("data.path=none", "data.tokenizer=gpt2")
    assert resolve_vocab_size(gpt2).model.vocab_size == 50257
    with pytest.raises(UserError, match=r"vocab_size is unset, .*char depends on the data"):
        resolve_vocab_size(_unset(nowhere, "data.tokenizer=char"))


def test_a_vocabulary_that_is_set_stays_and_must_be_that_of_the_data(folder: Path) -> None:
    config = _config("model.vocab_size=300")
    assert resolve_vocab_size(config) is config
    with pytest.raises(UserError, match=r"vocab_size=300, but the tokenizer of one has 257 ids"):
        open_sets(config)


def test_folders_of_different_tokenizers_are_refused(folder: Path) -> None:
    for name, text in (("ab", "ab"), ("abc", "abc")):
        prepare([Document(name, text * 200)], "char", name)
    flags = ("data.path=none", "data.mixture=ab=1,abc=1", "data.tokenizer=char")
    with pytest.raises(UserError, match="abc and ab have char tokenizers of different tokens"):
        resolve_vocab_size(_unset(*flags))
