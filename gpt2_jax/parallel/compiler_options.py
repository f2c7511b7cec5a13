"""Chooses XLA's options for each kind of device: what differs from its defaults, and why."""

from __future__ import annotations

import jax
from jax.sharding import AbstractMesh, Mesh

from gpt2_jax.config import ModelConfig
from gpt2_jax.parallel.cpu import vector_instructions
from gpt2_jax.parallel.platforms import platform_of

# Products with an axis as long as this are faster in Eigen on CPUs with AVX2: with YNNPACK, shorter
# ones gain a fifth, and these lose up to a quarter.
_LONG_AXIS = 2048


def compiler_options(mesh: Mesh | AbstractMesh, model: ModelConfig) -> dict[str, str | bool]:
    """Returns the options to compile a step with.

    Args:
      mesh: the devices, which need not exist.
      model: the model that the step computes.
    """
    platform = platform_of(mesh)
    if platform == "tpu":
        # A windowed product passes activations or weights around a ring of permutes, piece by
        # piece, where FSDP gathers the weights once; for 124M on 16 chips it moves twice as much.
        return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
    if platform == "cpu" and model.mlp_width >= _LONG_AXIS and _has_only_avx2():
        return {"xla_cpu_experimental_ynn_fusion_type": ""}
    return {}


def _has_only_avx2() -> bool:
    """Returns whether the CPU is known to have AVX2 and nothing wider, and JAX the option."""
    found = vector_instructions() or set()
    wider = any(name.startswith(("avx512", "amx")) for name in found)
    return "avx2" in found and not wider and jax.__version_info__ < (0, 11)
