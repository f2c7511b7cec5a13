"""`gpt2-jax doctor`: what is installed, which devices there are, which fast paths are on."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpt2_jax
from gpt2_jax.errors import StorageError
from gpt2_jax.parallel.chips import chip_for

HELP = """\
Show what is installed, which devices JAX finds, which fast paths are on, and what the machine has.
What is missing is reported, never an error. With --model, look at a run's checkpoints instead: read
every file and say what is wrong with each step; the exit status is 78 if none is left to use."""
EXAMPLES = """\
gpt2-jax doctor
gpt2-jax doctor --json
gpt2-jax doctor --model runs/quickstart"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument(
        "--model", metavar="M", help="a run's workdir, or a step's folder: check its checkpoints"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report; 0 whatever it says, but 78 for a run without a usable checkpoint."""
    if args.model is not None:
        return _look_at_run(args.model, args.json)
    report = examine()
    if not args.json:
        try:
            from gpt2_jax.cli.doctor_table import show
        except ImportError:  # without rich there is still the document
            pass
        else:
            show(report)
            return 0
    json.dump(report, sys.stdout, indent=2)
    print()
    return 0


def _look_at_run(model: str, as_json: bool) -> int:
    from gpt2_jax.formats.examine import examine_run

    report = examine_run(model)
    if as_json:
        print(json.dumps(report))
    else:
        print(_readable(report))
    usable = any(step["problem"] is None for step in report["steps"])
    return 0 if usable else StorageError.exit_status


def _readable(report: dict[str, Any]) -> str:
    rows = []
    for step in report["steps"]:
        good = (
            "good" if step["resumable"] else "good, to load but not to resume: no optimizer state"
        )
        rows.append(
            (f"step {step['step']}", f"damaged: {step['problem']}" if step["problem"] else good)
        )
    rows += [(other["name"], other["what"]) for other in report["others"]]
    width = max((len(name) for name, _ in rows), default=0)
    lines = [report["folder"], *(f"  {name:<{width}}  {said}" for name, said in rows)]
    good = [step["step"] for step in report["steps"] if step["problem"] is None]
    none = "no step is good" if report["steps"] else "no step was saved yet, or all are removed"
    lines.append(f"the newest good step is {good[0]}" if good else none)
    return "\n".join(lines)


def examine() -> dict[str, Any]:
    """The whole report as plain values.

    Keys: `versions` {package: version or None}, `devices` [{platform, kind, count, memory_bytes,
    chip}], `fast_paths` {name: {on: bool or None, detail}}, `extras` {name: {installed, missing}},
    `vocabulary` {name: {ok, detail}}, `machine`, and `problems`, a list of sentences.
    """
    problems: list[str] = []

    def attempt(what: str, look: Callable[[], Any], otherwise: Any) -> Any:
        # A broken installation is what this verb is for: any failure is a finding.
        try:
            return look()
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            problems.append(f"{what}: {reason}")
            return otherwise

    needs = attempt("requirements", requirements, {})
    versions = {"gpt2_jax": gpt2_jax.__version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in ["jaxlib", *needs.get("", [])]}
    problems += [f"{name} is not installed" for name, found in versions.items() if found is None]
    devices = attempt("devices", _devices, [])
    return {
        "versions": versions,
        "devices": devices,
        "fast_paths": attempt("fast paths", lambda: _fast_paths(devices), {}),
        "extras": {
            extra: {
                "installed": all(_version(name) for name in names),
                "missing": [name for name in names if not _version(name)],
            }
            for extra, names in needs.items()
            if extra
        },
        "vocabulary": {"gpt2": attempt("vocabulary", _vocabulary, {"ok": False, "detail": ""})},
        "machine": attempt("machine", _machine, {}),
        "problems": problems,
    }


def requirements() -> dict[str, list[str]]:
    """Names of the packages needed, by extra; the core is under the empty name.

    Read from the installed metadata, or from pyproject.toml in a checkout that is not installed.
    """
    try:
        lines = importlib.metadata.requires("gpt2_jax") or []
    except importlib.metadata.PackageNotFoundError:
        project = tomllib.loads(
            (Path(gpt2_jax.__file__).parents[1] / "pyproject.toml").read_text("utf-8")
        )["project"]
        lines = list(project["dependencies"])
        for extra, needed in project["optional-dependencies"].items():
            lines += [f"{line}; extra == '{extra}'" for line in needed]
    found: dict[str, list[str]] = {}
    for line in lines:
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
        names = found.setdefault(extra[1] if extra else "", [])
        names += [name for name in _packages(line) if name not in names]
    return found


def _packages(requirement: str) -> list[str]:
    """`jax[cuda12]>=1` is jax and what jax needs for that extra; an extra of ours adds nothing."""
    match = re.match(r"([\w.-]+)\s*(?:\[([\w,\s-]+)\])?", requirement)
    if match is None or match[1].replace("-", "_") == "gpt2_jax":
        return []
    names = [match[1]]
    if match[2]:
        try:
            theirs = importlib.metadata.requires(match[1]) or []
        except importlib.metadata.PackageNotFoundError:
            return names
        wanted = [extra.strip() for extra in match[2].split(",")]
        for line in theirs:
            extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
            name = re.match(r"[\w.-]+", line)
            if extra and name and extra[1] in wanted:
                names.append(name[0])
    return names


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    """The devices JAX finds, like ones together."""
    import jax

    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for device in jax.devices():
        chip = chip_for(device.device_kind)
        try:
            memory = (device.memory_stats() or {}).get("bytes_limit")
        except Exception:  # not every backend has statistics
            memory = None
        row = {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": 0,
            "memory_bytes": memory or (chip and chip.hbm_bytes),
            "chip": chip and chip.name,
            "compute_capability": getattr(device, "compute_capability", None),
        }
        groups.setdefault((device.platform, device.device_kind), row)["count"] += 1
    return list(groups.values())


def _fast_paths(devices: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each path's `on` (None: cannot tell) and why."""
    platforms = {device["platform"] for device in devices}
    if "tpu" in platforms:
        matrix = {"on": True, "detail": "TPU matrix units"}
        paths = {"bf16": matrix, "int8": matrix}
    elif "gpu" in platforms:
        capability = min(float(d["compute_capability"] or 0) for d in devices)
        detail = f"compute capability {capability:g}"
        paths = {
            "bf16": {"on": capability >= 8.0, "detail": detail},
            "int8": {"on": capability >= 7.5, "detail": detail},
        }
    else:
        paths = _cpu_paths()
    on_tpu = "tpu" in platforms
    return paths | {
        "cudnn_attention": _cudnn(devices),
        "splash_attention": {"on": on_tpu, "detail": "Pallas kernel" if on_tpu else "no TPU"},
        "plans_compiled": _plans(),
        "compilation_cache": _compilation_cache(),
    }


def _plans() -> dict[str, Any]:
    """Whether `gpt2-jax plan` has a compiler for TPU slices."""
    version = _version("libtpu")
    return {
        "on": bool(version),
        "detail": f"libtpu {version}" if version else "lacks libtpu (extra tpu)",
    }


def _cpu_paths() -> dict[str, dict[str, Any]]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        unknown = {"on": None, "detail": f"{platform.machine()}, whose instructions are unknown"}
        return {"bf16": unknown, "int8": unknown}
    flags = set(re.findall(r"\b(?:amx|avx512|avx)_?\w*", text))

    def fast(*wanted: str) -> dict[str, Any]:
        have = [flag for flag in wanted if flag in flags]
        return {
            "on": bool(have),
            "detail": ", ".join(have) or f"CPU has none of {', '.join(wanted)}",
        }

    return {
        "bf16": fast("amx_bf16", "avx512_bf16"),
        "int8": fast("amx_int8", "avx512_vnni", "avx_vnni"),
    }


def _cudnn(devices: list[dict[str, Any]]) -> dict[str, Any]:
    """jax.nn.dot_product_attention's cuDNN path: Ampere or newer, and the cuDNN library."""
    gpus = [device for device in devices if device["platform"] == "gpu"]
    if not gpus:
        return {"on": False, "detail": "no NVIDIA GPU"}
    if min(float(gpu["compute_capability"] or 0) for gpu in gpus) < 8.0:
        return {"on": False, "detail": "needs compute capability 8.0 or more"}
    library = next((n for n in ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13") if _version(n)), None)
    if library is None:
        return {"on": None, "detail": "no cuDNN wheel; a cuDNN of the system may do"}
    return {"on": True, "detail": f"{library} {_version(library)}"}


def _compilation_cache() -> dict[str, Any]:
    import jax

    folder = getattr(jax.config, "jax_compilation_cache_dir", None)
    return {"on": bool(folder), "detail": folder or "JAX_COMPILATION_CACHE_DIR is not set"}


def _vocabulary() -> dict[str, Any]:
    """Builds GPT-2's tokenizer, which checks the sha256 of both of its files."""
    from gpt2_jax.tokenizers.tokenizer import make_tokenizer

    tokenizer = make_tokenizer("gpt2")
    return {"ok": True, "detail": f"{tokenizer.vocab_size:,} tokens, sha256 of both files right"}


def _machine() -> dict[str, Any]:
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS
    page = os.sysconf("SC_PAGE_SIZE")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_bytes": page * os.sysconf("SC_PHYS_PAGES"),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
    }
