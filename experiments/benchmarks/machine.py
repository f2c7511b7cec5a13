"""What a measurement depends on besides the code that is measured: machine, versions, commit."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.benchmarks.processes import ROOT

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx_vnni", "amx_tile", "amx_bf16")
_OURS = ("jax", "jaxlib", "flax", "optax", "numpy")
_PEERS = ("torch", "transformers", "ctranslate2", "numpy")
_VERSIONS = (
    "import importlib.metadata, json, sys\n"
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try:\n"
    "        found[name] = importlib.metadata.version(name)\n"
    "    except importlib.metadata.PackageNotFoundError:\n"
    "        pass\n"
    "print(json.dumps(found))\n"
)


def describe() -> dict[str, Any]:
    """Returns the processor, its flags that matter, cores, memory, and the GPU if there is one."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:  # only Linux has it
        text = ""
    names = re.findall(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    flags = set(" ".join(re.findall(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)[:1]).split())
    return {
        "cpu": names[0] if names else platform.processor(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "amx": "amx_bf16" in flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": _gpu(),
    }


def _gpu() -> dict[str, Any] | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        return None
    name, memory, driver = done.stdout.splitlines()[0].split(", ")
    return {"name": name, "memory_bytes": int(memory.split()[0]) << 20, "driver": driver}


def versions(peers: str | None, environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Returns the versions of packages here and, unless it is None, in the peers' interpreter.

    Raises:
      OSError: if the interpreter cannot be started.
      subprocess.CalledProcessError: if it fails.
    """
    found = {"ours": {"python": platform.python_version()}}
    found["ours"] |= _versions_in(sys.executable, _OURS, environment)
    if peers is not None:
        found["peers"] = _versions_in(peers, _PEERS, {})
    return found


def _versions_in(
    python: str, names: tuple[str, ...], environment: Mapping[str, str]
) -> dict[str, str]:
    done = subprocess.run(
        [python, "-c", _VERSIONS, *names],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def commit() -> str | None:
    """Returns the commit of the working tree, with `-dirty` if files differ; None without git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def source_digest() -> str:
    """Returns a digest of the source, which says whether a measurement is still valid."""
    folders = ("gpt2_jax", "configs", "experiments/benchmarks")
    files = sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))
    names = [str(path.relative_to(ROOT)).encode() for path in files]
    pairs = zip(names, [path.read_bytes() for path in files], strict=True)
    return digest(*(part for pair in pairs for part in pair))


def digest(*parts: bytes) -> str:
    """Returns the beginning of the sha256 of all parts together."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def seconds_of_others() -> float | None:
    """Returns the processor seconds since a fixed moment, without this process and its children.

    Children count once they have ended. Where there is no /proc/stat, it is None.
    """
    try:
        first = Path("/proc/stat").read_text("utf-8").splitlines()[0].split()[1:]
    except OSError:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; the others are counted in these.
    ticks = [int(word) for word in first[:8]]
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])
