"""XLA's options depend on the devices, the size of the model and the instructions of the CPU."""

from __future__ import annotations

import jax
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from gpt2_jax.config import ModelConfig
from gpt2_jax.parallel import cpu
from gpt2_jax.parallel.compiler_options import compiler_options

_SMALL, _LARGE = ModelConfig(d_model=192), ModelConfig(d_model=768)


def mesh(platform):
    device = AbstractDevice(device_kind="any", num_cores=1, platform=platform)
    return AbstractMesh((1,), ("data",), abstract_device=device)


@pytest.mark.parametrize(
    ("platform", "model", "flags", "expected"),
    [
        ("cpu", _LARGE, "avx avx2", {"xla_cpu_experimental_ynn_fusion_type": ""}),
        ("cpu", _SMALL, "avx avx2", {}),
        ("cpu", _LARGE, "avx avx2 avx512f", {}),
        ("cpu", _LARGE, "avx avx2 amx_bf16", {}),
        ("cpu", _LARGE, "neon", {}),
        ("gpu", _LARGE, "avx avx2", {}),
        ("tpu", _LARGE, "avx", {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}),
    ],
)
def test_options(monkeypatch, tmp_path, platform, model, flags, expected):
    monkeypatch.setattr(cpu, "_CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags}\n")
    assert compiler_options(mesh(platform), model) == expected


def test_this_version_has_the_option_for_cpus():
    compiled = jax.jit(lambda x: x @ x).lower(jax.numpy.ones((8, 8)))
    assert compiled.compile({"xla_cpu_experimental_ynn_fusion_type": ""})
