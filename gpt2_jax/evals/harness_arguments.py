"""Checks the arguments that lm-eval passes to our model, so that none is ignored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from gpt2_jax.errors import UserError

NAME = "gpt2_jax"
"""The name of our model in lm-eval's `--model`."""

_DTYPES = ("auto", "float32", "bfloat16")


def check_arguments(values: Mapping[str, Any], unknown: Iterable[str]) -> None:
    """Checks the arguments of `GPT2JaxLM` other than `batch_size`.

    Args:
      values: model, dtype, tokens_per_batch, seed and device.
      unknown: the names of other arguments.

    Raises:
      UserError: if an argument is missing, unknown or out of range.
    """
    if names := list(unknown):
        raise UserError(
            f"the model {NAME} has no argument {', '.join(names)}; it has: model, dtype, "
            "tokens_per_batch, seed, batch_size, max_batch_size, device"
        )
    if values["model"] is None:
        raise UserError(f"the model {NAME} needs a path: pass it with --model_args model=M")
    if values["dtype"] not in _DTYPES:
        raise UserError(f"dtype must be one of {', '.join(_DTYPES)}, not {values['dtype']!r}")
    _check_integer("seed", values["seed"], 0)
    if values["tokens_per_batch"] is not None:
        _check_integer("tokens_per_batch", values["tokens_per_batch"], 1)
    _check_device(values["device"])


def _check_integer(name: str, value: Any, minimum: int) -> None:
    if type(value) is not int or value < minimum:
        raise UserError(f"{name} must be an integer of at least {minimum}, not {value!r}")


def _check_device(device: str | None) -> None:
    """Refuses a device other than JAX's, because it would be ignored silently."""
    if device in (None, "cuda:0"):  # lm-eval passes cuda:0 by default, on any machine
        return
    kind, _, number = device.partition(":")
    backend = jax.default_backend()
    if {"cuda": "gpu"}.get(kind, kind) != backend or (number and jax.local_device_count() > 1):
        raise UserError(
            f"device={device}, but JAX runs on {backend} ({jax.local_device_count()} devices): "
            "leave it out, and choose with JAX_PLATFORMS or CUDA_VISIBLE_DEVICES"
        )
