from __future__ import annotations

import subprocess
import sys

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.staging import open_staging


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_lies_beside_out_and_is_removed_at_the_end(tmp_path, out):
    with open_staging(out, keep=True) as staging:
        (staging.encoded / "a.tokens").write_bytes(b"12")
        (staging.shards / "train.bin").write_bytes(b"12")
        assert names(tmp_path) == [".out.preparing"]
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("keep", "content", "kept"), [(True, b"12", True), (True, b"", False), (False, b"12", False)]
)
def test_a_failure_keeps_tokens_and_no_lock(tmp_path, out, keep, content, kept):
    with pytest.raises(KeyboardInterrupt), open_staging(out, keep=keep) as staging:
        (staging.encoded / "a.tokens").write_bytes(content)
        raise KeyboardInterrupt
    assert names(tmp_path) == ([".out.preparing"] if kept else [])
    if kept:
        assert names(tmp_path / ".out.preparing") == ["parts", "shards"]
    with open_staging(out, keep=keep) as staging:
        assert staging.has_tokens() == kept


def test_unfinished_files_of_a_killed_run_are_removed(out):
    with pytest.raises(ValueError), open_staging(out, keep=True) as staging:
        for name in ("a.tokens", "b.tokens.host-1-0.tmp"):
            (staging.encoded / name).write_bytes(b"12")
        raise ValueError
    with open_staging(out, keep=True) as staging:
        assert names(staging.encoded) == ["a.tokens"]


def test_a_second_process_is_refused_and_removes_nothing(out):
    with open_staging(out, keep=True) as staging:
        refusal = pytest.raises(
            UserError, match=rf"^--out {out} is being prepared by process \d+ on"
        )
        with refusal, open_staging(out, keep=True):
            pass
        assert staging.encoded.is_dir() and staging.shards.is_dir()


@pytest.mark.slow
def test_processes_that_come_and_go_are_never_in_the_folder_together(tmp_path, out):
    code = """
import sys
from pathlib import Path
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.staging import open_staging

entered = 0
while entered < 100:
    try:
        with open_staging(Path(sys.argv[1]), keep=False) as staging:
            mine = staging.encoded / "mine"
            mine.open("x").close()
            assert [path.name for path in staging.encoded.iterdir()] == ["mine"]
            assert staging.shards.is_dir()
            mine.unlink()
            entered += 1
    except UserError:
        pass
"""
    command = [sys.executable, "-c", code, str(out)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert names(tmp_path) == []
