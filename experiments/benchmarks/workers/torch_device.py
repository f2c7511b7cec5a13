"""The device that torch computes on, and how to wait for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    """Waits until the device has done all that it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable[[], Any], count: int) -> float:
    """Returns the seconds of `count` calls."""
    wait()
    began = time.perf_counter()
    for _ in range(count):
        function()
    wait()
    return time.perf_counter() - began


def autocast(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Returns the context in which products are bfloat16, if that is the dtype."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(DEVICE, torch.bfloat16)
