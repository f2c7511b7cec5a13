"""The package works where what only Linux has is missing, as on macOS."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import CONFIG, SETTINGS

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT / "gpt2_jax"

# Python's documentation lists these as available on Linux and not on macOS, or not on all of it.
_ABSENT = {
    "os": (
        *("copy_file_range", "eventfd", "fdatasync", "getrandom", "memfd_create", "pidfd_open"),
        *("pipe2", "posix_fadvise", "posix_fallocate", "preadv", "pwritev", "splice"),
        *("sched_getaffinity", "sched_setaffinity", "setns", "unshare", "getxattr", "setxattr"),
        *("O_DIRECT", "O_TMPFILE"),
    ),
    "signal": ("SIGPOLL", "SIGPWR", "SIGRTMAX", "SIGRTMIN", "sigtimedwait", "sigwaitinfo"),
    "select": ("epoll",),
    "mmap": ("MADV_HUGEPAGE", "MADV_NOHUGEPAGE", "MAP_POPULATE"),
    "resource": ("prlimit",),
}

# `sys.platform` stays: the standard library would then look for macOS's own modules.
_SCRIPT = """
import builtins, ctypes, importlib, io, json, os, sys

absent, modules, commands = json.loads(sys.argv[1])
for module, names in absent.items():
    module = importlib.import_module(module)
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def without_proc(function):
    def call(path, *args, **kwargs):
        if not isinstance(path, int) and str(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return function(path, *args, **kwargs)

    return call


builtins.open = io.open = without_proc(open)
for name in ("open", "readlink", "stat", "listdir"):
    setattr(os, name, without_proc(getattr(os, name)))

sysconf = os.sysconf


def macos_sysconf(name):
    if name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"):
        raise ValueError("unrecognized configuration name")
    return sysconf(name)


os.sysconf = macos_sysconf


class Library(ctypes.CDLL):
    def __getattr__(self, name):
        if name in ("mallopt", "malloc_trim"):
            raise AttributeError(name)
        return super().__getattr__(name)


ctypes.CDLL = Library

for name in modules:
    importlib.import_module(name)
from gpt2_jax.cli.main import main

for command in commands:
    status = main(command)
    if status:
        sys.exit(f"{command[0]} ended with status {status}")
"""


def _modules() -> list[str]:
    paths = sorted(_PACKAGE.rglob("*.py"))
    names = [".".join(path.relative_to(_ROOT).with_suffix("").parts) for path in paths]
    # __main__ runs the command line when it is imported.
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


@pytest.mark.slow
def test_a_model_trains_and_samples_without_what_only_linux_has(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one fish two fish " * 80)
    (tmp_path / "config.py").write_text(CONFIG.format(data="data"))
    commands = [
        ["prepare", "--input", "text.txt", "--tokenizer", "byte", "--out", "data", "--json"],
        ["train", "--config", "config.py", "--workdir", "run", "--stop_at_step", "3"],
        ["sample", "--model", "run", "--prompt", "one", "--max_new_tokens", "5", "--json"],
        ["doctor", "--json"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps([_ABSENT, _modules(), commands])],
        cwd=tmp_path,
        env=os.environ | SETTINGS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if '"loss"' in line][:3] == [1, 2, 3]
    _, sample, report = done.stdout.split("\n", 2)
    assert json.loads(sample)["samples"][0]["text"]
    machine = json.loads(report)["machine"]
    assert machine["memory_bytes"] is None and machine["cores"] >= 1


def test_names_that_only_linux_has_are_used_where_it_is_checked_that_they_exist() -> None:
    used = set()
    for path in sorted(_PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module, name = node.value.id, node.attr
                if name in _ABSENT.get(module, ()):
                    used.add((path.relative_to(_PACKAGE).as_posix(), f"{module}.{name}"))
    assert used == {
        ("data/shard_file.py", "os.preadv"),
        ("sweeps/engines/child.py", "os.sched_setaffinity"),
        ("parallel/cpu.py", "os.sched_getaffinity"),
    }
