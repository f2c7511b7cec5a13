"""Whether JAX can find anything but CPUs is known without JAX."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_jax.parallel import accelerators


@pytest.mark.parametrize(
    ("environment", "device", "alone"),
    [
        ({"HOME": "/root"}, "null", True),
        ({"TPU_NAME": ""}, "null", True),
        ({"TPU_SKIP_MDS_QUERY": "1"}, "null", True),
        ({"TPU_LIBRARY_PATH": "/opt/libtpu.so"}, "null", True),
        ({"TPU_WORKER_ID": "0"}, "null", False),
        ({"JAX_PLATFORMS": "tpu,cpu"}, "null", False),
        ({"LIBTPU_INIT_ARGS": "--xla_tpu_x=1"}, "null", False),
        ({}, "accel0", False),
        ({}, "accel/accel0", False),
        ({}, "vfio/0", False),
        ({}, "vfio/vfio", True),
    ],
)
def test_a_sign_of_a_tpu_is_never_overlooked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    device: str,
    alone: bool,
) -> None:
    monkeypatch.setattr(accelerators, "has_plugins", lambda: False)
    (tmp_path / device).parent.mkdir(exist_ok=True)
    (tmp_path / device).touch()
    assert accelerators.only_cpus(environment, tmp_path) == alone
    monkeypatch.setattr(accelerators, "has_plugins", lambda: True)  # as where there is CUDA
    assert not accelerators.only_cpus(environment, tmp_path)


@pytest.mark.parametrize("way", ["namespace", "entry point"])
def test_a_plugin_of_jax_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "namespace":
        (tmp_path / "jax_plugins" / "some_chip").mkdir(parents=True)
    else:
        made = tmp_path / "some_chip-1.0.dist-info"
        made.mkdir()
        (made / "METADATA").write_text("Name: some_chip\nVersion: 1.0\n")
        (made / "entry_points.txt").write_text("[jax_plugins]\nsome_chip = some_chip\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert accelerators.has_plugins()


def test_the_option_of_jax_goes_before_the_variable(tmp_path: Path) -> None:
    assert accelerators.only_cpus({"JAX_PLATFORMS": "tpu,cpu"}, tmp_path, platforms="cpu")
    assert not accelerators.only_cpus({}, tmp_path, platforms="cuda,cpu")


def test_importing_jax_changes_no_answer(tmp_path: Path) -> None:
    # JAX imports libtpu where it is installed, which then sets a variable, with or without a TPU.
    (tmp_path / "libtpu.py").write_text(
        "import os\nos.environ['TPU_LIBRARY_PATH'] = __file__\nget_library_path = lambda: __file__"
    )
    code = (
        "import os; from gpt2_jax.parallel.accelerators import only_cpus; "
        "before = only_cpus(os.environ); import jax; "
        "assert os.environ['TPU_LIBRARY_PATH']; "
        "assert only_cpus(os.environ, platforms=jax.config.values['jax_platforms']) == before"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_PLATFORM", "TPU_"))}
    clean["PYTHONPATH"] = os.pathsep.join([str(tmp_path), clean.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], env=clean, check=True)
