"""Says which platform a program is for, and checks that those `JAX_PLATFORMS` names exist."""

from __future__ import annotations

import os

import jax
from jax.extend.backend import clear_backends
from jax.sharding import AbstractMesh, Mesh

from gpt2_jax.errors import UserError, shortened
from gpt2_jax.parallel.variables import refused_variable

_PLATFORMS, _NAME = "jax_platforms", "jax_platform_name"  # options; the latter is the older one
# What the runtime reports while other processes are missing, whatever the platform.
_NOT_THE_PLATFORM = ("DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED", "CANCELLED")


def platform_of(mesh: Mesh | AbstractMesh | None = None) -> str:
    """Returns the platform of a mesh's devices: "cpu", "gpu" or "tpu".

    Args:
      mesh: by default the mesh in force. For a mesh without devices, or without one in force, the
        devices are those that JAX would use.
    """
    abstract = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    if isinstance(abstract, Mesh):
        abstract = abstract.abstract_mesh
    device = None if abstract.empty else abstract.abstract_device
    return jax.default_backend() if device is None else device.platform


def check_platforms() -> None:
    """Starts JAX's devices.

    In a run of several processes, call `distributed.initialize` first.

    Raises:
      UserError: if the environment variable `JAX_PLATFORMS` (or the older `JAX_PLATFORM_NAME`), or
        the option of the same name in `jax.config`, names a platform that this machine or this
        installation does not have, or if JAX refuses another of its variables.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter without the plugin for CUDA
        if (refusal := refused_variable(error)) is not None:
            raise UserError(refusal) from error
        reason = str(error)
        option = _NAME if reason.startswith("Unknown backend") else _PLATFORMS
        named = jax.config.values[option]
        if not named or any(code in reason for code in _NOT_THE_PLATFORM):
            raise
        reason = reason.partition(" (set JAX_PLATFORMS")[0].rstrip(".")
        raise UserError(
            f"{_setting(option, named)} names a platform that JAX cannot use here"
            f"{f' ({shortened(reason, 200)})' if reason else ''}: unset it, or set it to what is "
            f"available: {_available()}"
        ) from error


def _setting(option: str, named: str) -> str:
    if os.environ.get(option.upper()) == named:
        return f"{option.upper()}={named} in the environment"
    return f"the option {option}={named} of jax.config"


def _available() -> str:
    """Returns the names of the platforms that JAX finds if nobody names any."""
    if jax.distributed.is_initialized():  # processes start their devices together
        return "cpu, or what `gpt2-jax doctor` lists without JAX_PLATFORMS"
    named = {option: jax.config.values[option] for option in (_PLATFORMS, _NAME)}
    clear_backends()
    for option in named:
        jax.config.update(option, None)
    try:
        found = {device.platform for device in jax.devices()}
    except (RuntimeError, AssertionError):
        found = set()
    finally:
        clear_backends()
        for option, name in named.items():
            jax.config.update(option, name)
    return ", ".join(sorted(found | {"cpu"}))
