"""Unset knobs of `compute` stand for what the platform, the model and the batch suggest."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from gpt2_jax.config import ComputeConfig, ModelConfig, from_dict
from gpt2_jax.model.defaults import (
    explain_dtype,
    layers_per_iteration,
    loss_positions,
    with_dtype,
)
from gpt2_jax.model.loss import plain_cross_entropy, weighted_cross_entropy
from gpt2_jax.parallel import cpu
from gpt2_jax.parallel.platforms import platform_of
from tests.model.test_loss import PADDED, B, T, V, inputs

_SMALL = ModelConfig(num_layers=12, vocab_size=50257)


@pytest.mark.parametrize(
    ("platform", "changes", "expected"),
    [
        ("tpu", {}, 12),
        ("cpu", {}, 1),
        ("gpu", {}, 1),
        ("tpu", {"remat": "dots"}, 1),
        ("tpu", {"num_layers": 24}, 1),
        ("tpu", {"num_layers": 4}, 4),
        ("tpu", {"scan_unroll": 3}, 3),
        ("cpu", {"scan_unroll": 3}, 3),
    ],
)
def test_small_models_are_unrolled_on_tpus(monkeypatch, platform, changes, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    num_layers = changes.pop("num_layers", 12)
    model = dataclasses.replace(_SMALL, num_layers=num_layers)
    assert layers_per_iteration(model, ComputeConfig(**changes)) == expected


@pytest.mark.parametrize(
    ("rows", "length", "platform", "expected"),
    [
        (2, 1024, "tpu", 512),
        (8, 1024, "tpu", 128),
        (1, 1024, "tpu", 0),  # the whole sequence
        (4096, 1024, "tpu", 1),
        (0, 1024, "tpu", 0),
        (8, 1000, "tpu", 125),
        (8, 1021, "tpu", 0),  # a prime: one position at a time would take an age
        (8, 1024, "cpu", 128),
        (2, 1024, "gpu", 128),
        (2, 100, "cpu", 0),
    ],
)
def test_an_unset_chunk_is_the_divisor_nearest_to_what_is_wanted(rows, length, platform, expected):
    assert loss_positions(None, rows, length, platform) == expected


@pytest.mark.parametrize(("chunk", "expected"), [(0, 0), (64, 64), (256, 0), (512, 0)])
def test_a_chunk_that_is_set_is_taken(chunk, expected):
    assert loss_positions(chunk, 8, 256, "tpu") == expected


def test_the_platform_is_that_of_the_mesh_in_force_or_of_the_devices_of_jax():
    tpu = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    mesh = AbstractMesh((1,), ("data",), abstract_device=tpu)
    assert platform_of(mesh) == "tpu"
    assert platform_of() == platform_of(AbstractMesh((1,), ("data",))) == jax.default_backend()
    assert platform_of(jax.make_mesh((1,), ("data",))) == jax.default_backend()
    with jax.sharding.use_abstract_mesh(mesh):
        assert platform_of() == "tpu"


@pytest.mark.parametrize("cross_entropy", [weighted_cross_entropy, plain_cross_entropy])
def test_the_loss_takes_an_unset_chunk(cross_entropy, monkeypatch):
    arrays = inputs(jnp.float32)
    whole = cross_entropy(*arrays, V, 0)
    monkeypatch.setattr("gpt2_jax.model.defaults._POSITIONS", T // 2)
    text = str(jax.make_jaxpr(lambda *a: cross_entropy(*a, V, None))(*arrays))
    assert f"f32[{B},{T // 2},{PADDED}]" in text and f"f32[{B},{T},{PADDED}]" not in text
    np.testing.assert_allclose(cross_entropy(*arrays, V, None), whole, rtol=1e-6)


def test_both_knobs_are_unset_unless_somebody_sets_them():
    compute = from_dict({"model": {"context_length": 1000}}).compute
    assert compute.scan_unroll is compute.loss_chunk is None


@pytest.mark.parametrize(
    ("platform", "flags", "expected"),
    [
        ("tpu", "", ("bfloat16", None)),
        ("gpu", "amx_bf16", ("bfloat16", None)),
        ("cpu", "avx2 avx512f avx512_vnni", ("float32", None)),
        ("cpu", "avx512f avx512_bf16", ("float32", "bfloat16")),
        ("cpu", "amx_bf16 amx_tile", ("float32", "bfloat16")),
    ],
)
def test_auto_is_the_dtype_that_is_fastest(monkeypatch, tmp_path, platform, flags, expected):
    monkeypatch.setattr(cpu, "_CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags} sse2\n")
    chosen = with_dtype(ComputeConfig(dtype="auto"), platform)
    assert (chosen.dtype, chosen.precision) == expected
    for kept in (ComputeConfig(dtype="float32"), ComputeConfig(dtype="bfloat16", precision="high")):
        assert with_dtype(kept, platform) == kept
    highest = with_dtype(ComputeConfig(dtype="auto", precision="highest"), platform)
    assert highest.precision == "highest"


@pytest.mark.parametrize(
    ("platform", "flags", "compute", "line"),
    [
        ("tpu", "", {}, "bfloat16 (compute.dtype=auto: the devices are TPUs)"),
        (
            "cpu",
            "avx512f avx512_bf16",
            {},
            "float32, factors of products rounded to bfloat16 (compute.dtype=auto: this CPU has "
            "avx512_bf16)",
        ),
        (
            "cpu",
            "avx2",
            {},
            "float32 (compute.dtype=auto: this CPU lacks amx_bf16 and avx512_bf16)",
        ),
        (
            "cpu",
            "amx_bf16",
            {"precision": "highest"},
            "float32, products in precision highest (compute.dtype=auto: this CPU has amx_bf16)",
        ),
        ("cpu", None, {}, "float32 (compute.dtype=auto: this CPU does not tell its instructions)"),
        ("gpu", "", {"dtype": "float32"}, "float32 (compute.dtype=float32)"),
        ("gpu", "", {"dtype": "bfloat16"}, "bfloat16 (compute.dtype=bfloat16)"),
    ],
)
def test_the_dtype_is_said_and_why(monkeypatch, tmp_path, platform, flags, compute, line):
    monkeypatch.setattr(cpu, "_CPU_INFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags} sse2\n")
    assert explain_dtype(ComputeConfig(**({"dtype": "auto"} | compute)), platform) == line


def test_auto_is_float32_where_the_instructions_are_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "_CPU_INFO", tmp_path / "missing")
    assert with_dtype(ComputeConfig(dtype="auto"), "cpu") == ComputeConfig(dtype="float32")
