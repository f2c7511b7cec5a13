"""The table of chips."""

from __future__ import annotations

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.parallel.chips import CHIPS, chip_for, chip_named


@pytest.mark.parametrize(
    ("device_kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5e", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "v7x"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10G", "a10g"),
        ("Tesla V100-SXM2-16GB", "v100-16gb"),
        ("Tesla V100-SXM2-32GB", "v100-32gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
    ],
)
def test_device_kinds_that_jax_reports_find_their_row(device_kind: str, name: str) -> None:
    chip = chip_for(device_kind)
    assert chip is not None
    assert chip.name == name


@pytest.mark.parametrize(
    "device_kind",
    ["cpu", "", "NVIDIA L40S", "NVIDIA L40", "NVIDIA A10", "TPU v4 lite", "TPU v2", "TPU8i",
     "NVIDIA GB200", "NVIDIA GH200 480GB", "NVIDIA H100 NVL", "NVIDIA GeForce RTX 4090 Laptop GPU"],
)  # fmt: skip
def test_a_chip_that_only_resembles_a_row_is_unknown(device_kind: str) -> None:
    assert chip_for(device_kind) is None


def test_figures_are_plausible_and_in_the_units_stated() -> None:
    for chip in CHIPS:
        assert 5e13 < chip.peak_bf16_flops < 1e16, chip.name
        assert 16 * 2**30 <= chip.hbm_bytes <= 200 * 2**30, chip.name
        assert 2e11 < chip.hbm_bandwidth < 1e13, chip.name
        assert 3e10 < chip.link_bandwidth < chip.hbm_bandwidth, chip.name
        assert chip.clock_hz is None or 5e8 < chip.clock_hz < 4e9, chip.name
        assert chip.source


def test_names_are_unique() -> None:
    assert len({chip.name for chip in CHIPS}) == len(CHIPS)


def test_dense_peaks_that_mfu_is_quoted_against() -> None:
    """llm.c and nanoGPT quote MFU against these."""
    peaks = {chip.name: chip.peak_bf16_flops for chip in CHIPS}
    assert peaks["a100-80gb"] == 312e12
    assert peaks["h100-sxm"] == 989.5e12


def test_chips_go_by_their_names():
    assert [chip_named(chip.name) for chip in CHIPS] == list(CHIPS)
    assert chip_named("h100").name == "h100-sxm" and chip_named("a100").name == "a100-80gb"
    with pytest.raises(UserError, match="did you mean 'h100-sxm'"):
        chip_named("h100_sxm")
    with pytest.raises(UserError, match=r"one of .*h100, .*did you mean 'h100'"):
        chip_named("h1000")


def test_a_program_may_take_what_the_runtime_leaves_it():
    assert chip_named("v5e").available_bytes == 15.75 * 2**30
    assert chip_named("h100-sxm").available_bytes == 0.75 * 80 * 2**30  # as JAX takes it
