"""Says whether JAX can find anything but CPUs, without importing JAX or starting its devices."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path

DEVICE_FILES = Path("/dev")
"""The folder of the device files."""

# Environment variables that choose devices, or that machines with TPUs set.
_VARIABLES = ("JAX_PLATFORM", "JAX_FORCE_TPU", "PJRT_", "TPU_", "LIBTPU_", "CLOUD_TPU_")
# JAX itself sets them when it is imported: the one where it finds no TPU, the other wherever libtpu
# is installed, which compiles for TPUs on machines that have none.
_NO_SIGNS = ("TPU_SKIP_MDS_QUERY", "TPU_LIBRARY_PATH")
# Device files of TPU drivers: up to v4, and from v5e. /dev/vfio/vfio is there without a TPU, too.
_TPU_FILES = ("accel*", "vfio/[0-9]*")


def only_cpus(
    environment: Mapping[str, str], devices: Path = DEVICE_FILES, platforms: str | None = None
) -> bool:
    """Returns whether JAX can find no devices other than CPUs.

    That is so if JAX may use no others, or if neither `environment` nor the folder `devices`
    indicates a TPU, and no plugin is installed, which JAX needs for any other kind of device.

    Args:
      environment: the environment variables.
      devices: the folder of the device files.
      platforms: JAX's option `jax_platforms`, if JAX is imported; by default the variable.
    """
    if (platforms or environment.get("JAX_PLATFORMS")) == "cpu":
        return True
    if platforms:
        return False
    variables = any(
        value and name.startswith(_VARIABLES) and name not in _NO_SIGNS
        for name, value in environment.items()
    )
    files = any(path for pattern in _TPU_FILES for path in devices.glob(pattern))
    return not (variables or files or has_plugins())


def has_plugins() -> bool:
    """Returns whether a plugin of JAX is installed, in either of the ways JAX looks for them."""
    by_name = importlib.util.find_spec("jax_plugins")
    return bool(by_name or importlib.metadata.entry_points(group="jax_plugins"))
