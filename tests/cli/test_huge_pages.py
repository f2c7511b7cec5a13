from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gpt2_jax.cli import huge_pages
from gpt2_jax.cli.huge_pages import tunables

_OFFERED = "always [madvise] never\n"
_GLIBC = ("glibc", "2.36")

_CODE = """
import os, pathlib, signal, sys
from gpt2_jax.cli import huge_pages
huge_pages._KERNEL = pathlib.Path(os.environ["KERNEL"])
huge_pages.platform.libc_ver = lambda: ("glibc", "2.36")
print(os.getpid(), flush=True)
huge_pages.restart_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"))
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", None),
        ("glibc.malloc.hugetlb=2:glibc.malloc.arena_max=2", None),
    ],
)
def test_what_the_user_has_set_is_kept(present, expected):
    environment = {} if present is None else {"GLIBC_TUNABLES": present}
    assert tunables(environment, _OFFERED, _GLIBC) == expected


@pytest.mark.parametrize(
    ("kernel", "libc"),
    [
        ("[always] madvise never", _GLIBC),
        ("always madvise [never]", _GLIBC),
        (_OFFERED, ("glibc", "2.31")),
        (_OFFERED, ("", "")),
        (_OFFERED, ("musl", "1.2.4")),
    ],
)
def test_nothing_is_set_where_it_would_not_help(kernel, libc):
    assert tunables({}, kernel, libc) is None


def _lines(tmp_path, **variables):
    """What a process prints that may restart, where Linux offers huge pages on request."""
    kernel = tmp_path / "enabled"
    kernel.write_text(_OFFERED)
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    environment |= {"KERNEL": str(kernel), **variables}
    done = subprocess.run(
        [sys.executable, "-c", _CODE], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def test_a_process_restarts_once_and_keeps_its_number(tmp_path):
    first, second, value = _lines(tmp_path, JAX_PLATFORMS="cpu")
    assert first == second and first.isdigit()
    assert value == "glibc.malloc.hugetlb=1"


def test_accelerators_are_left_alone(tmp_path):
    pid, value = _lines(tmp_path, TPU_NAME="some", JAX_PLATFORMS="")
    assert pid.isdigit() and value == "None"


@pytest.mark.parametrize(
    ("kernel", "variables", "libc", "on", "detail"),
    [
        (_OFFERED, {}, _GLIBC, True, "train and eval set GLIBC_TUNABLES=glibc.malloc.hugetlb=1"),
        ("[always] madvise never", {}, _GLIBC, True, "Linux takes them unasked"),
        ("always madvise [never]", {}, _GLIBC, False, "says never"),
        (_OFFERED, {}, ("glibc", "2.31"), False, "from glibc 2.35 on"),
        (_OFFERED, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, _GLIBC, False, "environment"),
        (_OFFERED, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, _GLIBC, True, "environment"),
        (_OFFERED, {"JAX_PLATFORMS": "tpu"}, _GLIBC, False, "other devices than CPUs"),
        (None, {}, _GLIBC, False, "offers none"),
    ],
)
def test_what_doctor_says_of_them(tmp_path, monkeypatch, kernel, variables, libc, on, detail):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name, value in ({"JAX_PLATFORMS": "cpu"} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(huge_pages, "_KERNEL", tmp_path / "enabled")
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: libc)
    if kernel is not None:
        (tmp_path / "enabled").write_text(kernel)
    found = huge_pages.describe()
    assert found["on"] is on and detail in found["detail"]
