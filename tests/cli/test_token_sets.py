"""`gpt2-jax train --check_sha256`: shards whose sums are not those that `prepare` wrote down."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.cli.token_sets import open_sets
from gpt2_jax.config import Config, load_config
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document
from tests.runs import CONFIG


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
@pytest.mark.parametrize(("folder", "flags"), [("one", ()), ("two", _MIXTURE)])
def test_a_change_that_only_the_sum_shows_is_refused_where_it_is_asked_for(
    house: Path, capsys: pytest.CaptureFixture[str], folder: str, flags: tuple[str, ...], shard: str
) -> None:
    whole = open_sets(_config(*flags), check_sums=True)
    _swap_two_tokens(house / folder / shard)
    assert open_sets(_config(*flags)).fingerprint == whole.fingerprint
    capsys.readouterr()
    words = ["train", "--config", "tiny.py", "--workdir", "new", "--check_sha256"]
    assert main([*words, *(f"--config.{flag}" for flag in flags)]) == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {folder}/{shard} is damaged, its sha256 is not meta.json's")
    assert all(line.startswith("comparing the sha256") for line in progress)
    assert not Path("new").exists()


def test_shards_without_sums_are_refused_before_any_is_read(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("two")
    Path("two").mkdir()
    np.zeros(1000, np.uint16).tofile("two/train.bin")
    flags = [f"--config.{flag}" for flag in _MIXTURE]
    words = ["train", "--config", "tiny.py", "--workdir", "new"]
    assert main([*words, *flags, "--check_sha256"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --check_sha256: two has no meta.json with sums to compare")
    assert said.count("\n") == 1 and not Path("new").exists()


def test_a_dry_run_checks_no_sums(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "tiny.py", "--dry_run", "--check_sha256"]) == 2
    assert "a dry run reads no data" in capsys.readouterr().err
