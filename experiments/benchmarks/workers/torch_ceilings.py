"""What the machine can do, through torch: matrix products and a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from experiments.benchmarks.workers.torch_device import DEVICE, timed

_SLOW_SECONDS = 0.25  # of a product of an eighth of the work


class Ceilings:
    """Times products of square matrices, and an operation that reads and writes an array."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Makes the arrays."""
        name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
        self.facts = {"device": name, "platform": DEVICE, "threads": torch.get_num_threads()}
        self._parts: dict[str, Callable[[], Any]] = {}
        self._factors: dict[str, float] = {}
        self._results: dict[str, torch.Tensor] = {}
        for dtype in ("float32", "bfloat16"):
            multiply = self._product(dtype, task["size"] // 2)
            multiply()
            # A dtype that the processor lacks would take minutes, and half the size says it, too.
            slow = timed(multiply, 1) > _SLOW_SECONDS
            self._factors[dtype] = 8.0 if slow else 1.0
            self._parts[dtype] = multiply if slow else self._product(dtype, task["size"])
        array = torch.ones(task["copied"] // 4, device=DEVICE)
        self._results["copy"] = torch.zeros_like(array)
        self._parts["copy"] = lambda: torch.add(array, 1, out=self._results["copy"])
        for function in self._parts.values():
            function()

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a part, and answers the mean square of its result as evidence."""
        seconds = timed(self._parts[part], count) / count
        result = self._results[part].float()
        values = [float(result.square().mean()) / result.shape[0]]
        return {"seconds": seconds * self._factors.get(part, 1.0), "values": values}

    def _product(self, dtype: str, size: int) -> Callable[[], Any]:
        torch.manual_seed(0)
        a, b = (torch.randn(size, size, device=DEVICE).to(getattr(torch, dtype)) for _ in range(2))
        out = torch.empty_like(a)
        self._results[dtype] = out
        return lambda: torch.matmul(a, b, out=out)


def prepare(task: dict[str, Any]) -> Ceilings:
    """Returns the ceilings of torch's device."""
    return Ceilings(task)
