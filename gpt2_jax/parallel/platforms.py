"""Says which platform a program is for, and checks that those `JAX_PLATFORMS` names exist."""

from __future__ import annotations

import jax
from jax.extend.backend import clear_backends
from jax.sharding import AbstractMesh, Mesh

from gpt2_jax.errors import UserError, shortened

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
      UserError: if the environment variable `JAX_PLATFORMS`, or the setting of the same name in
        `jax.config`, names a platform that this machine or this installation does not have.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter without the plugin for CUDA
        named, reason = jax.config.values["jax_platforms"], str(error)
        if not named or any(code in reason for code in _NOT_THE_PLATFORM):
            raise
        reason = reason.partition(" (set JAX_PLATFORMS")[0].rstrip(".")
        raise UserError(
            f"JAX_PLATFORMS={named} in the environment names a platform that JAX cannot use here"
            f"{f' ({shortened(reason, 200)})' if reason else ''}: unset it, or set it to what is "
            f"available: {_available()}"
        ) from error


def _available() -> str:
    """Returns the names of the platforms that JAX finds if nobody names any."""
    if jax.distributed.is_initialized():  # processes start their devices together
        return "cpu, or what `gpt2-jax doctor` lists without JAX_PLATFORMS"
    named = jax.config.values["jax_platforms"]
    clear_backends()
    jax.config.update("jax_platforms", None)
    try:
        found = {device.platform for device in jax.devices()}
    except (RuntimeError, AssertionError):
        found = set()
    finally:
        clear_backends()
        jax.config.update("jax_platforms", named)
    return ", ".join(sorted(found | {"cpu"}))
