"""Says with which code and on which machine a record is written.

It stands in the records of sweeps that do not say themselves what they ran on.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy")
_SECONDS = 20  # that git may take
_CPU_INFO = Path("/proc/cpuinfo")


def environment() -> dict[str, str]:
    """Returns {what: value} of the project's version and commit, other versions and the machine.

    Accelerators are not among them, because asking for them would take them from runs.
    """
    return {"gpt2_jax": project(), "versions": versions(), "machine": machine()}


def project() -> str:
    """Returns the version of this project and, in a Git repository, the commit of its code."""
    # Importing the package here would make this one depend on JAX.
    version = str(sys.modules["gpt2_jax"].__version__)
    folder = Path(__file__).parent
    # Without --exclude, the name of a tag would stand in place of the commit.
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            [*words, "--exclude", "*"], capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return version
    if done.returncode:
        return version
    commit, _, changed = done.stdout.strip().partition("-")
    return f"{version}, commit {commit}{' with changes' if changed else ''}"


def versions() -> str:
    """Returns the versions of Python and of the packages that compute."""
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """Returns the processor, its number of cores and the operating system."""
    try:
        text = _CPU_INFO.read_text("utf-8", errors="replace")
    except OSError:  # only Linux has it
        text = ""
    names = re.findall(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}"
