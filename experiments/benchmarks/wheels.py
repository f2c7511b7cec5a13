"""Installs our requirements from a folder of wheels, on a machine without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


class CannotInstall(Exception):
    """Says why the wheels cannot be installed."""


def install(wheels: Path, folder: Path) -> dict[str, str]:
    """Installs every wheel of a folder into another; returns the environment that finds them.

    Dependencies are not installed, so that what the machine has, such as JAX, stays as it is.

    Raises:
      CannotInstall: if pip cannot install them.
    """
    files = sorted(str(path) for path in wheels.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(folder), *files],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise CannotInstall(done.stderr.strip().splitlines()[-1])
    return {"PYTHONPATH": str(folder)}
