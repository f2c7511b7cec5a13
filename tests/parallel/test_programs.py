"""A process says what it ran on, and which programs it had to compile."""

from __future__ import annotations

import os

import jax
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.parallel.programs import Programs, leave_run_info
from gpt2_jax.parallel.run_info import VARIABLE, RunInfo, read_run_info


def _run(number):
    """Runs a program that no other test has: one that was compiled before is loaded."""

    def scaled(x):
        return x * number

    return jax.jit(scaled)(1.0)


def test_a_program_is_compiled_once_and_then_loaded():
    number = int.from_bytes(os.urandom(4), "big") / 1000
    first = Programs()
    _run(number)
    assert "jit(scaled)" in first.compiled and "jit(scaled)" not in first.loaded
    second = Programs()
    _run(number)
    assert "jit(scaled)" in second.loaded and "jit(scaled)" not in second.compiled


def test_a_note_is_left_by_what_fails_too_and_only_if_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with leave_run_info():
        pass
    path = tmp_path / "info.json"
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(UserError), leave_run_info():
        _run(os.urandom(1)[0] / 7)
        raise UserError("a mistake")
    note = read_run_info(path)
    assert len(note.compiled) + len(note.loaded) > 0
    assert note.environment["jax"] == jax.__version__
    assert note.environment["device"] == f"{jax.device_count()} x cpu"
    assert {*note.environment} == {"python", "jax", "jaxlib", "device", "processor", "cores"}


def test_a_note_that_cannot_be_written_or_read_ends_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with leave_run_info():
        pass
    assert capsys.readouterr().err.startswith(f"warning: {VARIABLE}={tmp_path} cannot be written")
    broken = tmp_path / "broken.json"
    for content in (b"", b"[]", b'{"environment": 3, "compiled": [], "loaded": []}'):
        broken.write_bytes(content)
        assert read_run_info(broken) == RunInfo()
    assert read_run_info(tmp_path / "none.json") == RunInfo()
