"""Tests `gpt2-jax convert`: both directions, and what it refuses."""

from __future__ import annotations

import contextlib
import errno
import json
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from safetensors import SafetensorError

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.cli.main import main
from gpt2_jax.errors import UserError
from gpt2_jax.formats.load import load
from tests.inference.tiny import make_run, tiny_config

_PARAMETERS = 34_720


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("convert") / "run")


def test_a_run_goes_to_hf_and_back_to_the_bit(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hf, native = tmp_path / "deep" / "hf", tmp_path / "native"
    assert main(["convert", "--model", str(run), "--to", "hf", "--out", str(hf), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"model": str(run), "out": str(hf), "to": "hf", "parameters": _PARAMETERS}
    files = sorted(path.name for path in hf.iterdir())
    assert files == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert len({path.stat().st_mode for path in hf.iterdir()}) == 1  # who reads one, reads all
    assert main(["convert", "--model", str(hf), "--to", "native", "--out", str(native)]) == 0
    assert f"wrote {native}: {_PARAMETERS:,} parameters" in capsys.readouterr().out
    original, again = load(run), load(native)
    rows = tiny_config().model.vocab_size
    for loaded in (original, again):
        loaded.params["wte"] = loaded.params["wte"][:rows]
    jax.tree.map(np.testing.assert_array_equal, again.params, original.params)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "native"]


@pytest.mark.slow
def test_every_verb_takes_what_convert_writes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    main(["convert", "--model", str(run), "--to", "hf", "--out", str(tmp_path / "hf")])
    main(["convert", "--model", str(run), "--to", "native", "--out", str(tmp_path / "own")])
    capsys.readouterr()
    for model in (run, tmp_path / "hf", tmp_path / "own"):
        words = ["--prompt", "ab", "--max_new_tokens", "8", "--temperature", "0", "--json"]
        assert main(["sample", "--model", str(model), *words]) == 0
        texts.append(json.loads(capsys.readouterr().out)["samples"])
    assert texts[0] == texts[1] == texts[2]


def test_an_out_that_holds_something_is_left_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    words = ["convert", "--model", str(run), "--to", "hf", "--out"]
    for out, message in (
        (tmp_path, "is not empty: name a folder that is new or empty"),
        (tmp_path / "thesis.tex", "is a file: name a folder"),
        (tmp_path / "thesis.tex" / "below", "thesis.tex is a file; name a folder elsewhere"),
        (Path("/proc/below"), "cannot write --out /proc/below"),
    ):
        assert main([*words, str(out)]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_empty_out_is_filled_and_a_failure_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hf").mkdir()
    link = tmp_path.with_name(f"{tmp_path.name}_link")
    link.symlink_to(tmp_path / "hf")
    words = ["convert", "--model", str(run), "--to", "hf", "--out", str(link)]

    full = OSError(errno.ENOSPC, "No space left on device")
    for error in (full, SafetensorError("I/O error: No space left on device")):
        with monkeypatch.context() as patched:
            save_file = mock.Mock(side_effect=error)
            patched.setattr("gpt2_jax.formats.huggingface.save_file", save_file)
            assert main(words) == 78
        assert "No space left" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    assert main(words) == 0
    assert (tmp_path / "hf" / "model.safetensors").is_file() and link.is_symlink()


def test_a_run_in_a_converted_folder_is_told_how_to_train_the_model(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "native"
    assert main(["convert", "--model", str(run), "--to", "native", "--out", str(out)]) == 0
    before = sorted(out.rglob("*"))
    with (
        contextlib.closing(CheckpointStore(out / "checkpoints", keep=1)) as store,
        pytest.raises(UserError, match=rf"with --config\.train\.init_from={out}$"),
    ):
        store.newest_good()
    assert sorted(out.rglob("*")) == before
