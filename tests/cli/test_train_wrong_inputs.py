"""Tests the mistakes that `gpt2-jax train` refuses: flags, configs, data and other runs."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.files.lock import FileLock
from tests.cli.refusals import CONFIG, TRAIN, refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # The verb and its flags.
        (("trian",), "did you mean 'train'?"),
        (("train",), "--config"),
        ((*TRAIN, "--dry-rnu"), "did you mean '--dry_run'?"),
        ((*TRAIN, "stray"), "unexpected argument 'stray'"),
        ((*TRAIN, "--stop_at_step", "soon"), "invalid int value: 'soon'"),
        ((*TRAIN, "--stop_at_step", "0"), "--stop_at_step must be at least 1"),
        (("train", "--config", "tiny.py"), "--workdir DIR is missing"),
        (("train", "--config", "tiny.py", "--workdir", "text.txt"), "is a file"),
        # The config.
        (("train", "--config", "tyni.py", "--workdir", "new"), "did you mean 'tiny.py'?"),
        (("train", "--config", "data", "--workdir", "new"), "expected a Python file"),
        (("train", "--config", "text.txt", "--workdir", "new"), "expected a Python file"),
        (("train", "--config", "tiny.py", "--workdir", ""), "--workdir is empty"),
        (("train", "--config", "tiny.py", "--workdir", "/proc/new"), "cannot make --workdir"),
        (("train", "--config", "tiny.py", "--dry_run", "--show_knobs"), "cannot be combined"),
        ((*TRAIN, "--config.train.batchsize=4"), "did you mean 'train.batch_size'?"),
        ((*TRAIN, "--config.trian.seed=4"), "did you mean 'train.seed'?"),
        ((*TRAIN, "--config.train.seed=four"), "train.seed must be an integer"),
        ((*TRAIN, "--config.train.seed"), "--config.train.seed=VALUE"),
        ((*TRAIN, "--config.model.dropout=1"), "model.dropout must be below 1"),
        ((*TRAIN, "--config.model.num_heads=5"), "model.d_model=32 must be a multiple"),
        ((*TRAIN, "--config.data.tokenizer=bite"), "did you mean 'byte'?"),
        # The batch and the mesh: eight devices in the tests.
        ((*TRAIN, "--config.train.accumulation_steps=3"), "train.accumulation_steps=3"),
        ((*TRAIN, "--config.train.batch_size=12"), "train.batch_size=12 must be a multiple"),
        ((*TRAIN, "--config.train.accumulation_steps=2"), "train.batch_size=8 must be a multiple"),
        ((*TRAIN, "--config.mesh.data=3"), "does not fit 8 device(s)"),
        ((*TRAIN, "--config.mesh.tensor=8"), "tensor=8 does not divide"),
        ((*TRAIN, "--config.compute.attention=cudnn"), "cudnn"),
        # The data.
        ((*TRAIN, "--config.data.path=none"), "data.path is not set"),
        ((*TRAIN, "--config.data.path=missing"), "name another, or a .jsonl file of"),
        ((*TRAIN, "--config.data.path=text.txt"), "text.txt: it is a file; name its folder, ."),
        ((*TRAIN, "--config.data.path=data/train_000000.bin"), "is a file; name its folder, data"),
        ((*TRAIN, "--config.data.path=run"), "run has no train tokens"),
        ((*TRAIN, "--config.data.tokenizer=gpt2"), "--config.data.tokenizer=byte"),
        ((*TRAIN, "--config.model.vocab_size=256"), "--config.model.vocab_size=257"),
        ((*TRAIN, "--config.model.context_length=1024"), "prepare more text"),
        ((*TRAIN, "--config.train.seed=4294967296"), "train.seed must be"),
        # The run.
        (("train", "--config", "tiny.py", "--workdir", "run", "--config.train.seed=1"), "seed (0"),
        (("train", "--config", "tiny.py", "--workdir", "run", "--config.model.d_model=64"), "64"),
        (("train", "--config", "tiny.py", "--workdir", "run", "--config.train.total_steps=1"),
         "--stop_at_step"),
        ((*TRAIN, "--config.train.init_from=missing"), "no model at missing"),
        # Evaluations beside it.
        ((*TRAIN, "--config.eval.tasks=hellaswag"), "--config.eval.data=DIR"),
        ((*TRAIN, "--config.eval.tasks=helaswag", "--config.eval.data=."), "mean 'hellaswag'?"),
        ((*TRAIN, "--config.eval.tasks=ptb", "--config.eval.data=data"), "ptb needs data/ptb.te"),
        ((*TRAIN, "--config.eval.tasks=ptp", "--config.eval.data=.", "--dry_run"), "mean 'ptb'?"),
        ((*TRAIN, "--config.eval.limit=0"), "eval.limit must be"),
    ],
    ids=lambda value: " ".join(value[5:] or value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_train_refuses(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert message in refused(house, capsys, *words)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def _cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _other_magic(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + path.read_bytes()[4:])


def _other_version(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<i", 7)
    path.write_bytes(content)


def _no_tokens(path: Path) -> None:
    path.write_bytes(b"")


def _large_id(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2:] = np.uint16(300).tobytes()
    path.write_bytes(content)


def _removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    "damage",
    [_cut_off, _cut_in_header, _other_magic, _other_version, _no_tokens, _large_id, _removed],
)
def test_train_refuses_damaged_shards(
    house: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], split: str
) -> None:
    damage(house / "data" / f"{split}_000000.bin")
    err = refused(house, capsys, *TRAIN)
    assert "data" in err


@pytest.mark.parametrize(
    ("split", "count", "message"),
    [
        ("train", 63, "short: the train split has 63 tokens, but model.context_length=32 needs"),
        ("val", 1, "short: the val split has 1 tokens, but must have at least 2"),
    ],
)
def test_train_refuses_too_few_tokens_before_it_compiles(
    house: Path, capsys: pytest.CaptureFixture[str], split: str, count: int, message: str
) -> None:
    Path("short").mkdir()
    for name, tokens in {"train": 64, "val": 2, split: count}.items():
        np.zeros(tokens, np.uint16).tofile(Path("short", f"{name}.bin"))
    assert message in refused(house, capsys, *TRAIN, "--config.data.path=short")
    words = "--config.data.mixture=data=1,short=1", "--config.data.path=none"
    assert message in refused(house, capsys, *TRAIN, *words)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"tokenizer": {}}'])
def test_train_refuses_a_malformed_meta_json(
    house: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    Path("data", "meta.json").write_text(content, encoding="utf-8")
    assert "meta.json" in refused(house, capsys, *TRAIN)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c.model.num_layer = 2", "did you mean"),
        ("c.model.num_layers = '2'", "num_layers"),
        ("c.model.num_layers = = 2", "invalid syntax"),
        ("1 / 0", "division by zero"),
    ],
)
def test_train_refuses_a_broken_config_file(
    house: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    broken = CONFIG.replace("    return c", f"    {line}\n    return c")
    Path("tiny.py").write_text(broken, encoding="utf-8")
    number = broken.splitlines().index(f"    {line}") + 1
    err = refused(house, capsys, *TRAIN)
    assert f"tiny.py, line {number}:" in err
    assert message in err.lower()
    assert len(err) <= 200, err


def test_train_refuses_a_workdir_with_a_malformed_config_json(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "--config", "tiny.py", "--workdir", "run")
    for content in ("{", "[]", '{"model": {"num_layer": 2}}'):
        Path("run", "config.json").write_text(content, encoding="utf-8")
        assert "run/config.json" in refused(house, capsys, *words)


def test_train_refuses_to_start_from_a_model_of_another_shape(
    house: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"--config.train.init_from={model}", "--config.model.d_model=64")
    assert "d_model is 32 there and 64 in the config" in refused(house, capsys, *TRAIN, *words)


def test_train_refuses_a_workdir_that_another_trainer_has(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("new").mkdir()
    lock = FileLock(Path("new"))
    lock.acquire()
    try:
        assert f"in use by process {os.getpid()} on host " in refused(house, capsys, *TRAIN)
    finally:
        lock.release()
