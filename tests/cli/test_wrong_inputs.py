"""Tests mistakes of users: exit status 2, one line that says what to do, and no changed files.

The file is long because it is one table of wrong command lines for all verbs.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax import config as config_lib
from gpt2_jax.cli.main import main
from gpt2_jax.files.lock import FileLock
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from tests.inference.tiny import make_run, tiny_config

_TEXT = "To be, or not to be: that is the question. " * 40
_CONFIG = """
from gpt2_jax.config import default

def get_config():
    c = default()
    c.model.num_layers = 2
    c.model.num_heads = 4
    c.model.d_model = 32
    c.model.context_length = 32
    c.model.vocab_size = 257
    c.model.vocab_multiple = 16
    c.compute.dtype = "float32"
    c.compute.loss_chunk = 0
    c.compute.scan_unroll = 2
    c.data.path = "data"
    c.data.tokenizer = "byte"
    c.schedule.warmup_steps = 1
    c.train.batch_size = 8
    c.train.total_steps = 2
    return c
"""
_TRAIN = ("train", "--config", "tiny.py", "--workdir", "new")
_SAMPLE = ("sample", "--model", "run", "--max_new_tokens", "4")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a config, a text, its byte shards and the config of a finished run."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(_CONFIG, encoding="utf-8")
    Path("text.txt").write_text(_TEXT, encoding="utf-8")
    prepare(read_inputs(["text.txt"]), "byte", "data")
    Path("run", "checkpoints").mkdir(parents=True)
    values = config_lib.to_dict(tiny_config())
    values["data"]["path"] = "data"
    Path("run", "config.json").write_text(json.dumps(values), encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("wrong") / "run"))


def _contents(folder: Path) -> dict[str, bytes | None]:
    """Returns the bytes of every file, and every folder, by path."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def _refused(house: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns the only line of a command that was refused and changed nothing."""
    before = _contents(house)
    status = main(words)
    out, err = capsys.readouterr()
    assert status == 2, err
    assert not out
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert len(err) <= 400, err
    assert _contents(house) == before
    return err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # The verb and its flags.
        (("trian",), "did you mean 'train'?"),
        (("train",), "--config"),
        ((*_TRAIN, "--dry-rnu"), "did you mean '--dry_run'?"),
        ((*_TRAIN, "stray"), "unexpected argument 'stray'"),
        ((*_TRAIN, "--stop_at_step", "soon"), "invalid int value: 'soon'"),
        ((*_TRAIN, "--stop_at_step", "0"), "--stop_at_step must be at least 1"),
        (("train", "--config", "tiny.py"), "--workdir DIR is missing"),
        (("train", "--config", "tiny.py", "--workdir", "text.txt"), "is a file"),
        # The config.
        (("train", "--config", "tyni.py", "--workdir", "new"), "did you mean 'tiny.py'?"),
        (("train", "--config", "data", "--workdir", "new"), "expected a Python file"),
        (("train", "--config", "text.txt", "--workdir", "new"), "expected a Python file"),
        (("train", "--config", "tiny.py", "--workdir", ""), "--workdir is empty"),
        (("train", "--config", "tiny.py", "--workdir", "/proc/new"), "cannot make --workdir"),
        (("train", "--config", "tiny.py", "--dry_run", "--show_knobs"), "cannot be combined"),
        ((*_TRAIN, "--config.train.batchsize=4"), "did you mean 'train.batch_size'?"),
        ((*_TRAIN, "--config.trian.seed=4"), "did you mean 'train.seed'?"),
        ((*_TRAIN, "--config.train.seed=four"), "train.seed must be an integer"),
        ((*_TRAIN, "--config.train.seed"), "--config.train.seed=VALUE"),
        ((*_TRAIN, "--config.model.dropout=1"), "model.dropout must be below 1"),
        ((*_TRAIN, "--config.model.num_heads=5"), "model.d_model=32 must be a multiple"),
        ((*_TRAIN, "--config.data.tokenizer=bite"), "did you mean 'byte'?"),
        # The batch and the mesh: eight devices in the tests.
        ((*_TRAIN, "--config.train.accumulation_steps=3"), "train.accumulation_steps=3"),
        ((*_TRAIN, "--config.train.batch_size=12"), "train.batch_size=12 must be a multiple"),
        ((*_TRAIN, "--config.train.accumulation_steps=2"), "train.batch_size=8 must be a multiple"),
        ((*_TRAIN, "--config.mesh.data=3"), "does not fit 8 device(s)"),
        ((*_TRAIN, "--config.mesh.tensor=8"), "tensor=8 does not divide"),
        ((*_TRAIN, "--config.compute.attention=cudnn"), "cudnn"),
        # The data.
        ((*_TRAIN, "--config.data.path=none"), "data.path is not set"),
        ((*_TRAIN, "--config.data.path=missing"), "no data folder missing"),
        ((*_TRAIN, "--config.data.path=text.txt"), "no data folder text.txt"),
        ((*_TRAIN, "--config.data.path=run"), "run has no train tokens"),
        ((*_TRAIN, "--config.data.tokenizer=gpt2"), "--config.data.tokenizer=byte"),
        ((*_TRAIN, "--config.model.vocab_size=256"), "--config.model.vocab_size=257"),
        ((*_TRAIN, "--config.model.context_length=1024"), "prepare more text"),
        ((*_TRAIN, "--config.train.seed=4294967296"), "train.seed must be"),
        # The run.
        (("train", "--config", "tiny.py", "--workdir", "run", "--config.train.seed=1"), "seed (0"),
        (("train", "--config", "tiny.py", "--workdir", "run", "--config.model.d_model=64"), "64"),
        (("train", "--config", "tiny.py", "--workdir", "run", "--config.train.total_steps=1"),
         "--stop_at_step"),
        ((*_TRAIN, "--config.train.init_from=missing"), "no model at missing"),
        # Evaluations beside it.
        ((*_TRAIN, "--config.eval.tasks=hellaswag"), "--config.eval.data=DIR"),
        ((*_TRAIN, "--config.eval.tasks=helaswag", "--config.eval.data=."), "mean 'hellaswag'?"),
        ((*_TRAIN, "--config.eval.tasks=ptb", "--config.eval.data=data"), "ptb needs data/ptb.te"),
        ((*_TRAIN, "--config.eval.tasks=ptp", "--config.eval.data=.", "--dry_run"), "mean 'ptb'?"),
        ((*_TRAIN, "--config.eval.limit=0"), "eval.limit must be"),
    ],
    ids=lambda value: " ".join(value[5:] or value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_train_refuses(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert message in _refused(house, capsys, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input", "missing.txt", "--out", "new"), "missing.txt does not exist"),
        (("--input", "text.txt", "", "--out", "new"), "--input is empty"),
        (("--input", "text.txt", "--out", ""), "--out is empty"),
        (("--input", "run", "--out", "new"), "without any *.txt, *.jsonl"),
        (("--input", "empty.txt", "--out", "new"), "the corpus has no text"),
        (("--input", "latin1.txt", "--out", "new"), "latin1.txt is not UTF-8 text: byte 3 is 0xe9"),
        (("--input", "text.txt", "--out", "new", "--tokenizer", "bpe"), "--tokenizer"),
        (("--input", "text.txt", "--out", "new", "--val_fraction", "1"), "below 1, not 1"),
        (("--input", "text.txt", "--out", "new", "--val_fraction", "-0.1"), "at least 0"),
        (("--input", "text.txt", "--out", "new", "--val_fraction", "nan"), "nan"),
        (("--input", "text.txt", "--out", "new", "--workers", "0"), "workers must be at least 1"),
        (("--input", "text.txt"), "required: --out"),
        (("--out", "new"), "exactly one of --input PATH... or --corpus NAME"),
        (("--input", "text.txt", "--corpus", "python-stdlib", "--out", "new"), "exactly one"),
        (("--corpus", "pyhton-stdlib", "--out", "new"), "did you mean 'python-stdlib'?"),
        # Folders that hold something already.
        (("--input", "text.txt", "--out", "data", "--tokenizer", "char"), "holds other data"),
        (("--input", "other.txt", "--out", "data", "--tokenizer", "byte"), "holds other data"),
        (("--input", "text.txt", "--out", "run"), "is not prepared data"),
        (("--input", "text.txt", "--out", "text.txt"), "--out text.txt is a file: name a folder"),
        (
            ("--input", "text.txt", "--out", "text.txt/a/b"),
            "--out text.txt/a/b: text.txt is a file",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_prepare_refuses(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    Path("empty.txt").write_bytes(b"")
    Path("latin1.txt").write_bytes("café".encode("latin-1"))
    Path("other.txt").write_text("another text", encoding="utf-8")
    if "--tokenizer" not in words:
        words = (*words, "--tokenizer", "byte")
    assert message in _refused(house, capsys, "prepare", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "missing"), "no model at missing"),
        (("--model", "text.txt"), "text.txt is not a model"),
        (("--model", "data"), "data is not a model"),
        (("--prompt", "a"), "--model"),
        ((*_SAMPLE[1:], "--prompt", "a", "--prompt_file", "text.txt"), "not allowed with"),
        ((*_SAMPLE[1:], "--prompt", "a", "--interactive"), "not allowed with"),
        ((*_SAMPLE[1:], "--stream", "--json"), "--stream and --json exclude each other"),
        ((*_SAMPLE[1:], "--stream", "--num_samples", "2"), "--stream shows one sample"),
        ((*_SAMPLE[1:], "--num_samples", "0"), "--num_samples must be between 1 and 10000"),
        ((*_SAMPLE[1:], "--num_samples", str(10**30)), "--num_samples must be between 1 and 10000"),
        (
            (*_SAMPLE[1:], "--temperature", "-1"),
            "0 (greedy) or from 1e-30 to 1e30, not -1",
        ),
        ((*_SAMPLE[1:], "--temperature", "nan"), "temperature must be"),
        ((*_SAMPLE[1:], "--temperature", "warm"), "invalid float value: 'warm'"),
        ((*_SAMPLE[1:], "--top_k", "-1"), "top_k must be 0 (all tokens) or more"),
        ((*_SAMPLE[1:], "--top_p", "1.5"), "top_p must be between 0 and 1"),
        ((*_SAMPLE[1:], "--seed", "-1"), "--seed must be between 0 and 4294967295"),
        ((*_SAMPLE[1:], "--stop", ""), "--stop must not be empty"),
        ((*_SAMPLE[1:], "--prompt_file", "missing.txt"), "missing.txt"),
        ((*_SAMPLE[1:], "--prompt_file", "data"), "--prompt_file data"),
        ((*_SAMPLE[1:], "--prompt_file", "latin1.txt"), "latin1.txt is not UTF-8"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_sample_refuses(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    Path("latin1.txt").write_bytes("café".encode("latin-1"))
    assert message in _refused(house, capsys, "sample", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompt", "x" * 40), ["40 tokens", "context of 32"]),
        (("--prompt", "x" * 32), ["32 tokens", "context of 32"]),
        (("--prompt", "x" * 20, "--max_new_tokens", "13"), ["20 tokens", "max_new_tokens=13"]),
        (("--max_new_tokens", "0"), ["max_new_tokens must be at least 1"]),
        (("--max_new_tokens", "-3"), ["max_new_tokens must be at least 1"]),
        # What a shell passes on that is no UTF-8.
        (("--prompt", "a\udcff"), ["surrogate"]),
        (("--seed", str(2**64)), ["seed"]),
        (("--top_k", str(2**40), "--prompt", "x" * 40), ["40 tokens"]),
    ],
)
@pytest.mark.parametrize("mode", ["--json", "--stream"])
def test_sample_refuses_what_does_not_fit_the_model(
    model: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: list[str],
    mode: str,
) -> None:  # fmt: skip
    err = _refused(Path(model), capsys, "sample", "--model", model, mode, *words)
    assert all(part in err for part in message), err


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
    err = _refused(house, capsys, *_TRAIN)
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
    assert message in _refused(house, capsys, *_TRAIN, "--config.data.path=short")
    words = "--config.data.mixture=data=1,short=1", "--config.data.path=none"
    assert message in _refused(house, capsys, *_TRAIN, *words)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"tokenizer": {}}'])
def test_train_refuses_a_malformed_meta_json(
    house: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    Path("data", "meta.json").write_text(content, encoding="utf-8")
    assert "meta.json" in _refused(house, capsys, *_TRAIN)


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
    broken = _CONFIG.replace("    return c", f"    {line}\n    return c")
    Path("tiny.py").write_text(broken, encoding="utf-8")
    number = broken.splitlines().index(f"    {line}") + 1
    err = _refused(house, capsys, *_TRAIN)
    assert f"tiny.py, line {number}:" in err
    assert message in err.lower()
    assert len(err) <= 200, err


def test_train_refuses_a_workdir_with_a_malformed_config_json(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "--config", "tiny.py", "--workdir", "run")
    for content in ("{", "[]", '{"model": {"num_layer": 2}}'):
        Path("run", "config.json").write_text(content, encoding="utf-8")
        assert "run/config.json" in _refused(house, capsys, *words)


def test_train_refuses_to_start_from_a_model_of_another_shape(
    house: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"--config.train.init_from={model}", "--config.model.d_model=64")
    assert "d_model is 32 there and 64 in the config" in _refused(house, capsys, *_TRAIN, *words)


def test_train_refuses_a_workdir_that_another_trainer_has(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("new").mkdir()
    lock = FileLock(Path("new"))
    lock.acquire()
    try:
        assert f"in use by process {os.getpid()} on host " in _refused(house, capsys, *_TRAIN)
    finally:
        lock.release()


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "--model", "run", "--to", "hf", "--out", "text.txt/a"),
        ("eval", "--model", "run", "--text", "text.txt", "--out", "text.txt/a"),
        ("eval", "--model", "run", "--tasks", "ptb", "--data", "text.txt/a"),
        ("train", "--config", "tiny.py", "--workdir", "text.txt/a"),
    ],
    ids=lambda words: f"{words[0]} {words[-2]}",
)
def test_a_folder_below_a_file_is_refused(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    err = _refused(house, capsys, *words)
    assert f"{words[-2]} text.txt/a: text.txt is a file; name a folder elsewhere" in err


def test_doctor_refuses_what_it_does_not_know(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean '--json'?" in _refused(house, capsys, "doctor", "--jsn")


def test_debug_adds_the_traceback(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_TRAIN, "--debug", "--config.data.path=missing"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("error: no data folder missing")
