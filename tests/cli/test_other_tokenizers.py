"""Tests data whose tokens mean other text than the model's, with equal names, sizes and shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax import config as config_lib
from gpt2_jax.cli.main import main
from gpt2_jax.data.meta import write_meta
from gpt2_jax.data.shard_file import write_shard
from gpt2_jax.tokenizers.bpe import BPETokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.tokenizers.vocabulary import Vocabulary
from tests.inference.tiny import make_run, tiny_config


def _bpe(token: bytes) -> BPETokenizer:
    """Makes a tokenizer of the 256 bytes and one more token, which has the same id in each."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {token: 256}
    return BPETokenizer(Vocabulary(ranks, {}))


_PAIRS = [(CharTokenizer("abc"), CharTokenizer("xyz")), (_bpe(b"ab"), _bpe(b"xy"))]
_same_shape = pytest.mark.parametrize(("ours", "theirs"), _PAIRS, ids=["char", "bpe"])


def _data(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes shards that do not depend on the tokenizer."""
    folder.mkdir(exist_ok=True)
    tokens = np.tile(np.arange(3, dtype=np.uint16), 100)
    splits = {}
    for split in ("train", "val"):
        name = f"{split}_000000.bin"
        digest = write_shard(folder / name, [tokens], len(tokens))
        listed = [{"file": name, "tokens": len(tokens), "sha256": digest}]
        splits[split] = {"tokens": len(tokens), "bytes": 1, "documents": 1, "shards": listed}
    described = {"tokenizer": tokenizer.to_dict(), "vocab_size": tokenizer.vocab_size}
    write_meta(folder, {**described, "splits": splits})


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text("from gpt2_jax.config import default as get_config\n")
    return tmp_path


def _flags(tokenizer: Tokenizer) -> list[str]:
    """Returns flags for the knobs that differ from the defaults."""
    values, defaults = (
        config_lib.to_dict(config) for config in (tiny_config(tokenizer), config_lib.Config())
    )
    values["data"]["path"] = "data"
    return [
        f"--config.{section}.{name}={value}"
        for section, knobs in values.items()
        for name, value in knobs.items()
        if value != defaults[section][name]
    ]


def _make_run(tokenizer: Tokenizer) -> None:
    make_run(Path("run"), tokenizer=tokenizer)
    config = json.loads(Path("run/config.json").read_text())
    config["data"]["path"] = "data"
    Path("run/config.json").write_text(json.dumps(config))


def _files(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def _refused(capsys: pytest.CaptureFixture[str], workdir: str, *flags: str) -> str:
    status = main(["train", "--config", "tiny.py", "--workdir", workdir, *flags])
    errors = capsys.readouterr().err
    assert status == 2 and errors.count("\n") == 1 and "compiling" not in errors, errors
    return errors


@_same_shape
def test_a_run_does_not_go_on_with_data_of_another_tokenizer(
    house: Path, capsys: pytest.CaptureFixture[str], ours: Tokenizer, theirs: Tokenizer
) -> None:
    _make_run(ours)
    _data(house / "data", theirs)
    before = _files("run")
    assert (
        f"the {ours.name} tokenizer of the data is not the one that run was trained with"
        in _refused(capsys, "run", *_flags(theirs))
    )
    assert _files("run") == before


@_same_shape
def test_a_run_does_not_start_from_a_model_of_another_tokenizer(
    house: Path, capsys: pytest.CaptureFixture[str], ours: Tokenizer, theirs: Tokenizer
) -> None:
    _make_run(ours)
    _data(house / "data", theirs)
    flags = (*_flags(theirs), "--config.train.init_from=run")
    assert "train.init_from=run has another tokenizer than the data" in _refused(
        capsys, "new", *flags
    )
    assert not Path("new").exists()


@pytest.mark.slow
def test_a_model_is_sampled_with_its_own_tokenizer_whatever_became_of_its_data(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = _PAIRS[0]
    _make_run(ours)
    _data(house / "data", theirs)
    words = ["sample", "--model", "run", "--max_new_tokens", "4", "--json", "--prompt"]
    assert main([*words, "ab"]) == 0
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    assert set(sample["text"]) <= set("abc")
    assert main([*words, "xy"]) == 2
    assert "does not know 'x'" in capsys.readouterr().err
