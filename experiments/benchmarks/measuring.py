"""Measures a case: workers that are alive together do the task in turn, round after round."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import agreement
from experiments.benchmarks.case import Case, Subject
from experiments.benchmarks.processes import Worker, WorkerFailed
from experiments.benchmarks.summary import summarize

StartWorker = Callable[[Subject, str], Worker]


def measure(
    case: Case,
    task: dict[str, Any],
    start: StartWorker,
    rounds: int,
    *,
    together: bool,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Measures a case.

    Args:
      case: what to measure, with the subjects that can be.
      task: its task with the paths of the inputs.
      start: (subject, kind) -> its worker.
      rounds: A/B/A/B rounds of every part.
      together: whether the workers may prepare at the same time, on a machine of many cores.
      log: called with a line for each worker that fails.

    Returns:
      {"title", "kind", "dtype", "rounds", "count", "work": {part: {"tokens", "flops", "bytes"}},
      "subjects": {name: {"facts", "seconds": {part: one number a
      round}, "summary": {part: {"median", "p10", "p90", "ratio"}}, "failure"}}, "agreement"}.
    """
    subjects: dict[str, dict[str, Any]] = {
        subject.name: {"facts": {}, "seconds": {}} for subject in case.subjects
    }
    evidence: dict[str, dict[str, list[Any]]] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}

        def attempt(name: str, step: Callable[[], Any]) -> Any:
            """Does a step, or else gives the worker up."""
            try:
                return step()
            except WorkerFailed as error:
                log(f"{case.name}: {error}")
                subjects[name]["failure"] = str(error)
                workers.pop(name)
                return None

        for subject in case.subjects:
            worker = workers[subject.name] = start(subject, case.kind)
            stack.callback(worker.close)
            whole = {**task, "options": subject.options, "subject": subject.name}
            worker.send({"do": "prepare", "task": whole})
            if not together:
                facts = attempt(subject.name, worker.receive)
                subjects[subject.name]["facts"] = facts or {}
        if together:
            for name, worker in list(workers.items()):
                subjects[name]["facts"] = attempt(name, worker.receive) or {}
        for part in case.parts:
            count = case.counts.get(part, case.count)
            request = {"do": "run", "part": part, "count": count}
            for _ in range(rounds):
                for name, worker in list(workers.items()):
                    answer = attempt(name, functools.partial(worker.ask, request))
                    if answer is None:
                        continue
                    subjects[name]["seconds"].setdefault(part, []).append(answer["seconds"])
                    if case.gate is not None:
                        _keep(evidence, case.gate.evidence, name, part, answer)
    record = {
        "title": case.title,
        "kind": case.kind,
        "dtype": case.dtype,
        "rounds": rounds,
        "count": case.count,
        "work": {part: work._asdict() for part, work in case.parts.items()},
        "subjects": subjects,
    }
    if case.gate is not None:
        alive = {name: [*evidence.get(name, {}).values()] for name in subjects if name in workers}
        at_least = min(case.gate.at_least, rounds * case.count)
        record["agreement"] = agreement.compare(case.gate, alive, at_least)
    summarize(record)
    return record


def _keep(
    evidence: dict[str, dict[str, list[Any]]],
    kind: str,
    name: str,
    part: str,
    answer: dict[str, Any],
) -> None:
    """Keeps the losses of every round, and of other evidence what each part answers first."""
    kept = evidence.setdefault(name, {})
    if kind == "losses":
        kept.setdefault(part, []).extend(answer.get("losses", []))
    else:
        kept.setdefault(part, answer.get(kind, []))
