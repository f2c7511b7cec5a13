"""The GPUs of a machine are known without JAX."""

from __future__ import annotations

from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.parallel.gpus import local_gpu


def test_the_gpu_of_a_machine_is_known_without_jax(tmp_path):
    assert local_gpu(tmp_path) is None
    folder = tmp_path / "driver" / "nvidia" / "gpus" / "0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 3\n")
    assert local_gpu(tmp_path) == chip_named("h100")
    (folder / "information").write_text("Model: \t\t NVIDIA Unknown\n")
    assert local_gpu(tmp_path) is None
