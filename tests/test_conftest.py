"""Tests the rules of tests/conftest.py on small test suites."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SETTINGS = """
[pytest]
addopts = -m "not slow" -p no:cacheprovider -p no:hypothesispytest
markers =
    gpu: x
    external_data: x
    lm_eval: x
    slow: x
"""


def _run(folder: Path, code: str, *flags: str, **environment: str) -> tuple[int, str]:
    (folder / "pytest.ini").write_text(_SETTINGS)
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_it.py").write_text("import pytest, os\n" + code)
    clean = {k: v for k, v in os.environ.items() if k not in ("GPT2_JAX_DATA", "JAX_PLATFORMS")}
    clean = {k: v for k, v in clean.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *flags],
        cwd=folder,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


_MIXED = """
def test_plain(): pass
@pytest.mark.gpu
def test_gpu(): pass
def test_data(data_dir): pass
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.slow
def test_slower(): pass
"""


@pytest.mark.parametrize("workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)])
def test_skips_are_counted_by_marker(tmp_path: Path, workers: tuple[str, ...]) -> None:
    status, output = _run(tmp_path, _MIXED, *workers)
    assert status == 0, output
    assert "skipped: gpu 1, external_data 1; slow tests not run: 2 (make test-all)" in output
    assert "1 passed" in output


@pytest.mark.slow
def test_external_data_runs_where_the_folder_is(tmp_path: Path) -> None:
    status, output = _run(tmp_path, _MIXED, GPT2_JAX_DATA=str(tmp_path))
    assert status == 0, output
    assert "2 passed" in output
    assert "external_data" not in output


@pytest.mark.slow
def test_slow_tests_stop_at_the_deadline(tmp_path: Path) -> None:
    status, output = _run(tmp_path, _MIXED, "-m", "slow", "--deadline", "0")
    assert status == 0, output
    assert "skipped: slow 2" in output
    status, output = _run(tmp_path, _MIXED, "-m", "slow", "--deadline", "100")
    assert "2 passed" in output


@pytest.mark.slow
def test_lm_eval_runs_where_it_is_installed(tmp_path: Path) -> None:
    code = "@pytest.mark.lm_eval\ndef test_it(): import lm_eval"
    (tmp_path / "lm_eval.py").write_text("")
    status, output = _run(tmp_path, code, PYTHONPATH=str(tmp_path))
    assert status == 0 and "1 passed" in output, output
    # None in sys.modules makes Python treat the module as missing.
    hidden = "import sys\nsys.modules['lm_eval'] = None\n" + code
    status, output = _run(tmp_path, hidden, PYTHONPATH=str(tmp_path))
    assert status == 0 and "skipped: lm_eval 1" in output, output


_SKIPPING = """
def test_inside(): pytest.skip('not today')
@pytest.mark.skip(reason='not today')
def test_marked(): pass
@pytest.mark.skipif(True, reason='not today')
def test_marked_if(): pass
@pytest.mark.xfail
def test_expected_failure(): assert False
"""


def test_a_skip_without_a_marker_fails_the_run(tmp_path: Path) -> None:
    status, output = _run(tmp_path, _SKIPPING)
    assert status == 1
    assert "1 failed, 1 xfailed, 2 errors" in output  # a mark skips during set-up
    assert output.count("not today") >= 3


@pytest.mark.slow
def test_a_module_that_skips_itself_fails_the_run(tmp_path: Path) -> None:
    code = "pytest.skip('not today', allow_module_level=True)"
    status, output = _run(tmp_path, code, "-n", "1")
    assert status == 1
    assert "not today" in output


def test_jax_gets_eight_cpu_devices_and_keeps_the_users_flags(tmp_path: Path) -> None:
    code = """
def test_it():
    assert os.environ["XLA_FLAGS"].split() == [
        "--xla_dump_to=x", "--xla_force_host_platform_device_count=8",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1"]
    assert os.environ["JAX_PLATFORMS"] == "cpu"
"""
    status, output = _run(tmp_path, code, XLA_FLAGS="--xla_dump_to=x")
    assert status == 0, output


@pytest.mark.slow
def test_asking_for_gpu_tests_leaves_jax_its_gpu(tmp_path: Path) -> None:
    code = """
@pytest.mark.gpu
def test_it(): assert "JAX_PLATFORMS" not in os.environ
def test_other(): assert os.environ["JAX_PLATFORMS"] == "cpu"
"""
    # Without a GPU the test is skipped, but the variable is checked in any case.
    status, output = _run(tmp_path, code, "-m", "gpu")
    assert status == 0, output
    status, output = _run(tmp_path, code, "-m", "not gpu")
    assert "1 passed" in output
