"""Runs the cases of a suite, one after the other, and keeps what is finished."""

from __future__ import annotations

import dataclasses
import datetime
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.benchmarks import machine, plots, report
from experiments.benchmarks.case import Case, Shape, Subject
from experiments.benchmarks.inputs import Inputs, Unavailable
from experiments.benchmarks.measuring import measure
from experiments.benchmarks.processes import Worker, WorkerFailed
from experiments.benchmarks.results import Results
from experiments.benchmarks.wheels import install

_OPTIONAL = {"ctranslate2"}
# Compilation is measured, so that nothing compiled before is used.
_ENVIRONMENT = {
    "GPT2_JAX_COMPILATION_CACHE": "off",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    # Several processes share a GPU.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}

# As `gpt2-jax train` has it. Single steps of torch.compile get faster with it, and the median of a
# 124M step gets slower by a sixth.
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Holds what the command line says.

    Attributes:
      suite: `cpu` or `gpu`.
      tiny: whether the cases are tiny.
      peers: the interpreter of the other programs; None leaves them out.
      rounds: rounds of every case; None for each case's own number.
      out: the folder of the results.
      wheels: a folder of wheels to install first.
      commit: what the results say instead of git's answer.
      again: whether to measure again what is measured.
      timeout: seconds to wait for one answer.
      minutes: after so many, no further case is begun; None for no limit.
    """

    suite: str
    tiny: bool
    peers: str | None
    rounds: int | None
    out: Path
    wheels: Path | None
    commit: str | None
    again: bool
    timeout: float
    minutes: float | None


def run(cases: list[Case], order: list[str], settings: Settings) -> int:
    """Measures cases, writes the results and the report after each, and returns the exit status.

    It is 1 if a worker failed, results disagree, or there was no time for a case.

    Args:
      cases: what to measure.
      order: the names of all cases of the suite, in which the report has them.
      settings: how.

    Raises:
      CannotInstall: if the wheels cannot be installed.
      OSError, subprocess.CalledProcessError: if the peers' interpreter does not run.
    """
    results = Results(settings.out / f"{settings.suite}.json")
    ok, began = True, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as temporary:
        folder = Path(temporary)
        environment = dict(_ENVIRONMENT)
        if settings.wheels is not None:
            environment |= install(settings.wheels, folder / "wheels")
        if settings.suite == "cpu" or settings.tiny:
            environment |= _CPU
        stamp = {
            "size": "tiny" if settings.tiny else "full",
            "source": machine.source_digest(),
            "machine": machine.describe(),
            "versions": machine.versions(settings.peers, environment),
        }
        start = _starter(settings, environment)
        whole = {**os.environ, **environment}
        inputs = Inputs(folder, settings.tiny, _writer(start), whole)
        for case in cases:
            own = stamp | {
                "case": machine.digest(repr(case).encode()),
                "rounds": settings.rounds or case.rounds,
            }
            if not settings.again and results.is_done(case.name, own):
                _log(f"{case.name}: measured already; --again measures it again")
                continue
            if settings.minutes is not None and time.monotonic() - began > 60 * settings.minutes:
                _log(f"{case.name}: not begun after {settings.minutes:g} minutes; run it again")
                ok = False
                continue
            ok &= _one(case, inputs, start, settings, own, results, order)
    return 0 if ok else 1


def write_report(results: Results, suite: str) -> None:
    """Writes the Markdown and the plots beside the results."""
    folder = results.path.parent
    drawn = plots.draw(suite, results.content, folder)
    text = report.markdown(suite, results.content, drawn)
    (folder / f"{suite}.md").write_text(text, "utf-8")


def _one(
    case: Case,
    inputs: Inputs,
    start: Callable[[Subject, str], Worker],
    settings: Settings,
    stamp: dict[str, Any],
    results: Results,
    order: list[str],
) -> bool:
    """Measures a case; returns whether all went well."""
    began, others = time.monotonic(), machine.seconds_of_others()
    left_out = _left_out(case, settings, stamp["versions"])
    for name, reason in left_out.items():
        _log(f"{case.name}: {name} is left out, because {reason}")
    chosen = tuple(subject for subject in case.subjects if subject.name not in left_out)
    _log(f"{case.name}: making what it reads, then {', '.join(each.name for each in chosen)}")
    try:
        task = inputs.fill(case)
    except Unavailable as error:
        _log(f"{case.name}: left out: {error}")
        return True
    except WorkerFailed as error:
        _log(f"{case.name}: {error}")
        return False
    task |= {"python": sys.executable, "peer": settings.peers or ""}
    record = measure(
        dataclasses.replace(case, subjects=chosen),
        task,
        start,
        settings.rounds or case.rounds,
        together=settings.suite == "gpu" and not settings.tiny,
        log=_log,
    )
    record |= {
        "left_out": left_out,
        "commit": settings.commit or machine.commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "wall_seconds": round(time.monotonic() - began, 1),
        "cores_used_by_others": _cores_used(others, began),
        "stamp": stamp,
    }
    results.add(case.name, record, order)
    write_report(results, settings.suite)
    amiss = [name for name, passed in record.get("agreement", {"passed": {}})["passed"].items()
             if not passed]  # fmt: skip
    for name in amiss:
        _log(f"{case.name}: {name} disagrees: {record['agreement']['differences'].get(name)}")
    _log(f"{case.name}: {_medians(record)} ({record['wall_seconds']} s)")
    if doubt := report.busy(record):
        _log(f"{case.name}: {doubt}")
    return not amiss and not any("failure" in each for each in record["subjects"].values())


def _cores_used(others: float | None, began: float) -> float | None:
    """Returns how many cores other processes have used on average since a moment."""
    now = machine.seconds_of_others()
    if others is None or now is None:
        return None
    return round(max(0.0, (now - others) / (time.monotonic() - began)), 2)


def _medians(record: dict[str, Any]) -> str:
    part = next(iter(record["work"]))
    texts = [
        f"{name} {1000 * subject['summary'][part]['median']:,.4g} ms"
        for name, subject in record["subjects"].items()
        if part in subject["summary"]
    ]
    return f"{part}: {', '.join(texts)}"


def _left_out(
    case: Case, settings: Settings, versions: dict[str, dict[str, str]]
) -> dict[str, str]:
    """Returns {subject: why it cannot be measured}."""
    found = {}
    for subject in case.subjects:
        if _is_of_peer(subject) and settings.peers is None:
            found[subject.name] = "--peers is none"
        elif subject.program in _OPTIONAL and subject.program not in versions["peers"]:
            found[subject.name] = f"{subject.program} is not installed in {settings.peers}"
    return found


def _is_of_peer(subject: Subject) -> bool:
    """Returns whether a subject runs in the peers' interpreter."""
    command = subject.options.get("command", [])
    return subject.program in ("torch", "ctranslate2") or "{peer}" in command


def _starter(settings: Settings, environment: dict[str, str]) -> Callable[[Subject, str], Worker]:
    def start(subject: Subject, kind: str) -> Worker:
        runs_here = subject.program in ("jax", "command")
        python = sys.executable if runs_here else settings.peers
        assert python is not None
        own = dict(environment)
        if not runs_here or _is_of_peer(subject):  # the wheels are for our interpreter
            own.pop("PYTHONPATH", None)
        elif subject.program == "jax":  # a command of ours asks for huge pages itself
            own |= _HUGE_PAGES
        words = (subject.program, kind)
        return Worker(subject.name, words, python, own, settings.timeout)

    return start


def _writer(start: Callable[[Subject, str], Worker]) -> Callable[[Shape, Path], None]:
    """Returns the function that has our export write the weights of a shape into a folder."""

    def write(shape: Shape, folder: Path) -> None:
        worker = start(Subject("weights", "jax"), "inputs")
        try:
            task = {"shape": dataclasses.asdict(shape), "folder": str(folder)}
            worker.ask({"do": "prepare", "task": task})
        finally:
            worker.close()

    return write


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
