"""Eight fake devices, one cache of compiled programs, markers that skip, and a count of those.

A test is skipped by its marker or not at all: `gpu` where there is none, `external_data` where
GPT2_JAX_DATA names no folder, a package's marker where it is not installed, `slow` past
`--deadline`. Any other skip fails, so that a suite that quietly stopped testing something cannot be
green.
"""

from __future__ import annotations

import collections
import functools
import gc
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

# What tests of a marker need beside the test extra -> the package that shows it is there, and what
# installs it and runs them.
_PACKAGES = {
    "lm_eval": ("lm_eval", "make test-eval"),
    "libtpu": ("libtpu", "make test-plan"),
    "lm_eval_api": ("tenacity", "make test-eval"),
    "openai": ("openai", "make test-clients"),
    "ray": ("ray", "make test-ray"),
    "gcs": ("gcp_storage_emulator", "make test-gcs"),
    "chromium": ("playwright", "make test-page"),
}
_MARKERS = ("gpu", "external_data", *_PACKAGES, "slurm", "slow")
_FLAGS = {
    "xla_force_host_platform_device_count": "8",
    # The emitters of before compile unoptimized programs in half the time.
    "xla_cpu_use_fusion_emitters": "false",
    # One LLVM module a program: a tiny program cut into parts costs twice the time.
    "xla_cpu_parallel_codegen_split_count": "1",
}

# Before anything imports jax, which reads it once.
_given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
    [_given, *(f"--{name}={value}" for name, value in _FLAGS.items() if name not in _given)]
).strip()

# For tests of what a program computes, not how fast: half the time would go into optimizing it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# What one test has compiled, the others load: workers and the processes that tests start, too.
_owns_cache = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if _owns_cache:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Tracing makes and drops objects by the million: looking through all that live each 700 of them
# takes 7 % of the tests' time.
gc.set_threshold(200_000, 20, 100)

_started = time.monotonic()
_slow_deselected = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--deadline",
        type=float,
        metavar="SECONDS",
        help="start no further slow test once the run is this old",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_slow_deselected] = 0
    # `-m gpu` asks for the accelerator; else the same eight CPU devices everywhere.
    expression = config.getoption("markexpr") or ""
    if "gpu" not in expression or "not gpu" in expression:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        if jax := sys.modules.get("jax"):  # a package's conftest may have imported it before this
            jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])


def pytest_unconfigure() -> None:
    if _owns_cache:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@functools.cache
def _has_gpu() -> bool:
    if os.environ.get("JAX_PLATFORMS") == "cpu":  # no need to import jax to know
        return False
    import jax

    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


def _external_data() -> Path | None:
    folder = os.environ.get("GPT2_JAX_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None


@pytest.fixture
def data_dir() -> Path:
    """The folder of texts that GPT2_JAX_DATA names; a test that asks for it is `external_data`."""
    folder = _external_data()
    assert folder is not None, "pytest_runtest_setup skips before this"
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("external_data")


def pytest_runtest_setup(item: pytest.Item) -> None:
    deadline = item.config.getoption("deadline")
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("needs a GPU")
    if item.get_closest_marker("external_data") and _external_data() is None:
        pytest.skip("GPT2_JAX_DATA names no folder")
    for marker, (package, target) in _PACKAGES.items():
        if item.get_closest_marker(marker) and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: {target}")
    if item.get_closest_marker("chromium") and not shutil.which("chromium"):
        pytest.skip("Chromium is not installed: make test-page")
    if item.get_closest_marker("slurm") and not (shutil.which("sbatch") and os.geteuid() == 0):
        pytest.skip("Slurm is not installed, or this is not root: make test-slurm")
    late = deadline is not None and time.monotonic() - _started > deadline
    if item.get_closest_marker("slow") and late:
        pytest.skip(f"past the deadline of {deadline:g} s")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        marker = next((name for name in _MARKERS if item.get_closest_marker(name)), None)
        report.marker = marker  # an attribute of its own travels from xdist's workers
        if marker is None:
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} was skipped without a marker {', '.join(_MARKERS[:-1])} or slow: "
                f"{_reason(report.longrepr)}"
            )


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Any:
    outcome = yield
    report = outcome.get_result()
    if report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} skips as a whole: {_reason(report.longrepr)}"


def _reason(longrepr: Any) -> str:
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow"):
            item.config.stash[_slow_deselected] += 1


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # Under xdist only the workers collect, each of them everything.
    count = getattr(node, "workeroutput", {}).get("slow_deselected", 0)
    node.config.stash[_slow_deselected] = max(node.config.stash[_slow_deselected], count)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["slow_deselected"] = session.config.stash[_slow_deselected]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    counts = collections.Counter(getattr(report, "marker", None) for report in reports)
    parts = [f"{name} {counts[name]}" for name in _MARKERS if counts[name]]
    lines = [f"skipped: {', '.join(parts)}"] if parts else []
    if config.stash[_slow_deselected]:
        lines.append(f"slow tests not run: {config.stash[_slow_deselected]} (make test-all)")
    if lines:
        terminalreporter.write_line("; ".join(lines))
