"""Says with which code and on which machine results were obtained."""

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
    """Returns {what: value} of the commit, the versions and the machine of this process.

    Accelerators are not among them, because asking for them would take them from the runs.
    """
    return {"commit": commit(), "versions": versions(), "machine": machine()}


def commit() -> str:
    """Returns the commit of this package's code, followed by `-dirty` if files differ from it.

    Code that is not in a Git repository, such as an installed package, has `not in a repository`.
    """
    folder = Path(__file__).parent
    # Without --exclude, the name of a tag would stand in place of the commit.
    words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            [*words, "--exclude", "*"], capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown, because git did not run"
    return done.stdout.strip() if done.returncode == 0 else "not in a repository"


def versions() -> str:
    """Returns the versions of Python, this package and those that compute."""
    package = sys.modules["gpt2_jax"]  # importing it here would make this package depend on JAX
    found = [f"Python {platform.python_version()}", f"gpt2_jax {package.__version__}"]
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
