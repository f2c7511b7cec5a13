"""Measures a case: workers that are alive together do the task in turn, round after round."""

from __future__ import annotations

import contextlib
import functools
import time
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
      log: called with a line for each worker that is prepared or fails, and for each round.

    Returns:
      {"title", "kind", "dtype", "rounds", "count", "work": {part: {"tokens", "flops", "bytes"}},
      "subjects": {name: {"facts", "seconds": {part: one number a
      round}, "summary": {part: {"median", "p10", "p90", "ratio"}}, "failure"}}, "agreement"}.
    """
    turns = _Turns(case, log)
    with contextlib.ExitStack() as stack:
        turns.prepare(task, start, stack, together=together)
        for part in case.parts:
            for number in range(1, rounds + 1):
                turns.run(part, f"{part}, round {number} of {rounds}")
    record = {
        "title": case.title,
        "kind": case.kind,
        "dtype": case.dtype,
        "rounds": rounds,
        "count": case.count,
        "work": {part: work._asdict() for part, work in case.parts.items()},
        "subjects": turns.subjects,
    }
    if case.gate is not None:
        at_least = min(case.gate.at_least, rounds * case.count)
        record["agreement"] = agreement.compare(case.gate, turns.evidence(), at_least)
    summarize(record)
    return record


class _Turns:
    """Lets the workers of a case take turns, and keeps what they answer.

    Attributes:
      subjects: name -> {"facts", "seconds": {part: one number a round}, "failure" of one that is
        given up}.
    """

    def __init__(self, case: Case, log: Callable[[str], None]) -> None:
        self.subjects: dict[str, dict[str, Any]] = {
            subject.name: {"facts": {}, "seconds": {}} for subject in case.subjects
        }
        self._case, self._log = case, log
        self._workers: dict[str, Worker] = {}
        self._evidence: dict[str, dict[str, list[Any]]] = {}

    def prepare(
        self,
        task: dict[str, Any],
        start: StartWorker,
        stack: contextlib.ExitStack,
        *,
        together: bool,
    ) -> None:
        """Starts the workers, which the stack closes, and has them prepare the task."""
        for subject in self._case.subjects:
            worker = self._workers[subject.name] = start(subject, self._case.kind)
            stack.callback(worker.close)
            whole = {**task, "options": subject.options, "subject": subject.name}
            worker.send({"do": "prepare", "task": whole})
            if not together:
                self._receive_facts(subject.name)
        if together:
            for name in list(self._workers):
                self._receive_facts(name)

    def run(self, part: str, shown: str) -> None:
        """Has every worker do a part once, and says as `shown` how long each has taken."""
        case, texts = self._case, []
        request = {"do": "run", "part": part, "count": case.counts.get(part, case.count)}
        for name, worker in list(self._workers.items()):
            answer = self._attempt(name, functools.partial(worker.ask, request))
            if answer is None:
                continue
            self.subjects[name]["seconds"].setdefault(part, []).append(answer["seconds"])
            texts.append(f"{name} {answer['seconds']:.4g} s")
            if case.gate is not None:
                _keep(self._evidence, case.gate.evidence, name, part, answer)
        self._log(f"{case.name}: {shown}: {', '.join(texts)}")

    def evidence(self) -> dict[str, list[Any]]:
        """Returns the evidence of every worker that is alive, part after part."""
        return {
            name: [*self._evidence.get(name, {}).values()]
            for name in self.subjects
            if name in self._workers
        }

    def _receive_facts(self, name: str) -> None:
        began = time.monotonic()
        self.subjects[name]["facts"] = self._attempt(name, self._workers[name].receive) or {}
        if name in self._workers:
            self._log(f"{self._case.name}: {name} is ready after {time.monotonic() - began:.1f} s")

    def _attempt(self, name: str, step: Callable[[], Any]) -> Any:
        """Does a step, or else gives the worker up and returns None."""
        try:
            return step()
        except WorkerFailed as error:
            self._log(f"{self._case.name}: {error}")
            self.subjects[name]["failure"] = str(error)
            self._workers.pop(name)
            return None


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
