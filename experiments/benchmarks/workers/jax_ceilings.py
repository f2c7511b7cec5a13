"""What the machine can do, through JAX: matrix products and a copy."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gpt2_jax.parallel.chips import chip_for

_SLOW_SECONDS = 0.25  # of a product of an eighth of the work


class Ceilings:
    """Times products of square matrices, and an operation that reads and writes an array."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Makes the arrays."""
        device = jax.devices()[0]
        chip = chip_for(device.device_kind)
        self.facts = {
            "device": device.device_kind,
            "platform": device.platform,
            "nominal_bfloat16_flops": chip.peak_bf16_flops if chip else None,
        }
        self._parts: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self._factors: dict[str, float] = {}
        for dtype in ("float32", "bfloat16"):
            # Asked for float32 results, XLA has faster products of bfloat16 on CPUs.
            product = jax.jit(
                functools.partial(
                    jnp.matmul,
                    precision="highest" if dtype == "float32" else None,
                    preferred_element_type=jnp.float32,
                )
            )
            small = self._matrices(task["size"] // 2, dtype)
            jax.block_until_ready(product(*small))
            began = time.perf_counter()
            jax.block_until_ready(product(*small))
            # A dtype that the processor lacks would take minutes, and half the size says it, too.
            slow = time.perf_counter() - began > _SLOW_SECONDS
            arrays = small if slow else self._matrices(task["size"], dtype)
            self._parts[dtype], self._factors[dtype] = (product, arrays), 8.0 if slow else 1.0
        array = jnp.ones(task["copied"] // 4, jnp.float32)
        self._parts["copy"] = jax.jit(lambda x: x + 1), (array,)
        for function, arrays in self._parts.values():
            jax.block_until_ready(function(*arrays))

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a part, and answers the mean square of its result as evidence."""
        function, arrays = self._parts[part]
        result = None
        began = time.perf_counter()
        for _ in range(count):
            del result
            result = function(*arrays)
            jax.block_until_ready(result)
        seconds = (time.perf_counter() - began) / count
        value = float(jnp.mean(jnp.square(jnp.asarray(result).astype(jnp.float32))))
        factor = self._factors.get(part, 1.0)
        return {"seconds": seconds * factor, "values": [value / arrays[0].shape[0]]}

    def _matrices(self, size: int, dtype: str) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(jax.random.key(0))
        return tuple(jax.random.normal(key, (size, size), dtype) for key in keys)


def prepare(task: dict[str, Any]) -> Ceilings:
    """Returns the ceilings of JAX's first device."""
    return Ceilings(task)
