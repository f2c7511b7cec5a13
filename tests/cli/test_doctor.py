"""Tests `gpt2-jax doctor`."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax import __version__
from gpt2_jax.cli import doctor, fast_paths
from gpt2_jax.cli.main import main


def test_json_is_one_document_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == [
        "versions", "devices", "fast_paths", "extras", "vocabulary", "machine", "problems",
    ]  # fmt: skip
    assert report["versions"]["gpt2_jax"] == __version__
    assert report["versions"]["jax"] == importlib.metadata.version("jax")
    assert sum(device["count"] for device in report["devices"]) >= 1
    assert set(report["fast_paths"]) == {
        "bf16", "int8", "automatic_dtype", "cudnn_attention", "splash_attention", "cpu_attention",
        "kept_memory", "huge_pages", "plans_compiled", "compilation_cache",
    }  # fmt: skip
    assert report["vocabulary"]["gpt2"]["ok"] is True
    assert report["extras"]["test"] == {"installed": True, "missing": []}
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["disk_free_bytes"] > 0
    assert report["problems"] == []


def test_a_model_of_another_program_has_no_checkpoints_to_examine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert main(["doctor", "--model", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path} holds a model in another program's format" in err
    assert "no checkpoints to examine" in err and "is not a model" not in err


def test_table_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("machine", "devices", "fast paths", "vocabulary", "extras", "versions", "optax"):
        assert word in out
    assert "no problems found" in out


def test_what_is_missing_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Any:
        raise RuntimeError("no backend\nand more")

    real = importlib.metadata.version

    def version(package: str) -> str:
        if package == "optax":
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    for part in ("_devices", "_vocabulary", "_machine"):
        monkeypatch.setattr(doctor, part, broken)
    monkeypatch.setattr(importlib.metadata, "version", version)
    report = doctor.examine()
    assert report["versions"]["optax"] is None
    assert report["vocabulary"]["gpt2"]["ok"] is False
    assert "optax is not installed" in report["problems"]
    assert "devices: no backend" in report["problems"]
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "optax is not installed" in out
    assert "\ndevices\n  none" in out


def test_requirements_list_the_core_and_each_extra() -> None:
    needs = doctor.requirements()
    assert {"jax", "flax", "optax", "orbax-checkpoint", "grain", "tiktoken"} <= set(needs[""])
    assert {"starlette", "uvicorn"} <= set(needs["serve"])
    # jax itself is installed without CUDA: the extra is what comes with it.
    assert any("cuda" in name for name in needs["cuda"])
    assert "gpt2_jax" not in needs["dev"]


@pytest.mark.parametrize(
    ("capability", "on"), [("9.0", {"bf16", "int8"}), ("7.5", {"int8"}), ("7.0", set())]
)
def test_fast_paths_of_a_gpu_follow_its_compute_capability(capability: str, on: set[str]) -> None:
    paths = fast_paths.fast_paths([{"platform": "gpu", "compute_capability": capability}])
    assert {name for name in ("bf16", "int8") if paths[name]["on"]} == on
    if capability < "8":
        assert paths["cudnn_attention"]["on"] is False


def test_a_platform_that_is_not_there_is_a_clear_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def devices() -> Any:
        raise AssertionError

    monkeypatch.setattr("jax.devices", devices)
    monkeypatch.setattr("gpt2_jax.parallel.platforms._available", lambda: "cpu")
    monkeypatch.setattr(doctor, "_vocabulary", dict)  # takes a second
    (problem,) = doctor.examine()["problems"]
    assert "names a platform that JAX cannot use here: unset it, or set it to" in problem
