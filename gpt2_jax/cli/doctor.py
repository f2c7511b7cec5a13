"""Implements `gpt2-jax doctor`, which reports on the installation, the devices and a run."""

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
from gpt2_jax.cli.fast_paths import fast_paths, installed_version
from gpt2_jax.errors import StorageError
from gpt2_jax.parallel.chips import chip_for
from gpt2_jax.parallel.variables import refused_variable

HELP = """\
Show what is installed, which devices JAX finds, which fast paths are available, and the machine's
cores, memory and free disk. Missing parts are reported and are not an error.

With --model, examine a run's checkpoints instead: read every file and report which steps are good
and what is wrong with the others, also with the base of adapters (LoRA). The exit status is 78 if
no step is good."""
EXAMPLES = """\
gpt2-jax doctor
gpt2-jax doctor --json
gpt2-jax doctor --model runs/quickstart"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of tables"
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help="a run's workdir, the folder of one step, or RUN/checkpoints/best: what to examine",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report and returns 0, or 78 for a run that has no good checkpoint."""
    if args.model is not None:
        return _examine_run(args.model, args.json)
    report = examine()
    if not args.json:
        try:
            from gpt2_jax.cli.doctor_table import show
        except ImportError:  # rich is not installed: print the JSON document instead
            pass
        else:
            show(report)
            return 0
    json.dump(report, sys.stdout, indent=2)
    print()
    return 0


def _examine_run(model: str, as_json: bool) -> int:
    from gpt2_jax.formats.examine import examine_run

    report = examine_run(model)
    if as_json:
        print(json.dumps(report))
    else:
        print(_readable(report))
    usable = any(step["problem"] is None for step in report["steps"])
    return 0 if usable else StorageError.exit_status


def _readable(report: dict[str, Any]) -> str:
    entries = []
    for step in report["steps"]:
        state = (
            "good"
            if step["resumable"]
            else "good, but without optimizer state: it cannot be resumed"
        )
        if step["problem"]:
            state = f"damaged: {step['problem']}" if step["damaged"] else step["problem"]
        entries.append((f"step {step['step']}", state))
    entries += [(other["name"], other["what"]) for other in report["others"]]
    width = max((len(name) for name, _ in entries), default=0)
    lines = [report["folder"], *(f"  {name:<{width}}  {state}" for name, state in entries)]
    good = [step["step"] for step in report["steps"] if step["problem"] is None]
    none = "no step is good" if report["steps"] else "no step was saved yet, or all were removed"
    lines.append(f"the newest good step is {good[0]}" if good else none)
    if best := report["best"]:
        lines.append(f"the best step is {best['step']}: {best['metric']} {best['value']:.4f}")
    return "\n".join(lines)


def examine() -> dict[str, Any]:
    """Returns the whole report as plain values.

    Its keys are `versions` {package: version or None}, `devices` [{platform, kind, count,
    memory_bytes, chip}], `fast_paths` {name: {on: bool or None, detail}}, `extras` {name:
    {installed, missing}}, `vocabulary` {name: {ok, detail}}, `machine`, and `problems`, a list of
    sentences.
    """
    problems: list[str] = []

    def attempt(name: str, examine: Callable[[], Any], default: Any) -> Any:
        # This verb diagnoses broken installations, so any failure belongs in the report.
        try:
            return examine()
        except Exception as error:
            problems.append(f"{name}: {_reason(error)}")
            return default

    needs = attempt("requirements", requirements, {})
    versions = {"gpt2_jax": gpt2_jax.__version__, "python": platform.python_version()}
    versions |= {name: installed_version(name) for name in ["jaxlib", *needs.get("", [])]}
    problems += [
        f"{name} is not installed" for name, version in versions.items() if version is None
    ]
    devices = attempt("devices", _devices, [])
    paths = attempt("fast paths", lambda: fast_paths(devices), {})
    if cache_problem := paths.get("compilation_cache", {}).get("problem"):
        problems.append(cache_problem)
    return {
        "versions": versions,
        "devices": devices,
        "fast_paths": paths,
        "extras": {
            extra: {
                "installed": all(installed_version(name) for name in names),
                "missing": [name for name in names if not installed_version(name)],
            }
            for extra, names in needs.items()
            if extra
        },
        "vocabulary": {"gpt2": attempt("vocabulary", _vocabulary, {"ok": False, "detail": ""})},
        "machine": attempt("machine", _machine, {}),
        "problems": problems,
    }


def requirements() -> dict[str, list[str]]:
    """Returns the names of the required packages by extra; the core has the empty name.

    They come from the installed metadata, or from pyproject.toml in a checkout that is not
    installed.
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
    packages: dict[str, list[str]] = {}
    for line in lines:
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
        names = packages.setdefault(extra[1] if extra else "", [])
        names += [name for name in _packages(line) if name not in names]
    return packages


def _packages(requirement: str) -> list[str]:
    """Returns the packages of `jax[cuda12]>=1`: jax and what it requires for that extra."""
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


def _reason(error: Exception) -> str:
    refusal = refused_variable(error)
    return refusal or next(iter(str(error).splitlines()), "") or type(error).__name__


def _devices() -> list[dict[str, Any]]:
    """Returns the devices that JAX finds, grouped by kind."""
    import jax

    from gpt2_jax.parallel.platforms import check_platforms

    check_platforms()
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for device in jax.devices():
        chip = chip_for(device.device_kind)
        try:
            memory = (device.memory_stats() or {}).get("bytes_limit")
        except Exception:  # some backends have no statistics
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


def _vocabulary() -> dict[str, Any]:
    """Returns whether GPT-2's tokenizer can be built, which checks the sha256 of its files."""
    from gpt2_jax.tokenizers.tokenizer import make_tokenizer

    tokenizer = make_tokenizer("gpt2")
    return {"ok": True, "detail": f"{tokenizer.vocab_size:,} tokens, sha256 of both files verified"}


def _machine() -> dict[str, Any]:
    from gpt2_jax.parallel.cpu import available_cores

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(available_cores()),
        "memory_bytes": _memory_bytes(),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
    }


def _memory_bytes() -> int | None:
    """Returns the size of the machine's memory, or None if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except ValueError:  # a name that this system does not know
        return None
