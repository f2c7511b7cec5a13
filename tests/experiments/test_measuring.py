"""Measuring: turns, evidence, and workers that crash."""

import re
import sys

from experiments.benchmarks.case import Case, Gate, Subject, Work
from experiments.benchmarks.measuring import measure
from experiments.benchmarks.processes import Worker, WorkerFailed

_CASE = Case(
    "made_up",
    "train",
    "made up",
    {},
    (Subject("ours", "jax"), Subject("theirs", "torch")),
    {"step": Work(tokens=8, flops=100), "forward": Work(tokens=8, flops=30)},
    Gate("losses", 1e-3, at_least=6),
    count=2,
)


class _Worker:
    """Answers as a worker does, and writes down when."""

    def __init__(self, name, calls, *, seconds=1.0, loss=3.0, crash_at=None):
        self._name, self._calls, self._crash_at = name, calls, crash_at
        self._seconds, self._loss, self._asked = seconds, loss, 0

    def send(self, request):
        self._calls.append((self._name, request["do"]))

    def receive(self):
        return {"first_step_seconds": 9.0}

    def ask(self, request):
        self._asked += 1
        if self._asked == self._crash_at:
            raise WorkerFailed(f"{self._name}: ended with status -9\n    out of memory")
        self._calls.append((self._name, request["part"]))
        losses = [self._loss] * request["count"] if request["part"] == "step" else []
        return {"seconds": self._seconds * self._asked, "losses": losses}

    def close(self):
        self._calls.append((self._name, "closed"))


def _measure(**theirs):
    calls, lines = [], []
    workers = {"ours": _Worker("ours", calls), "theirs": _Worker("theirs", calls, **theirs)}
    record = measure(
        _CASE, {}, lambda subject, kind: workers[subject.name], 3, together=False, log=lines.append
    )
    return record, calls, lines


def test_workers_take_turns_part_by_part():
    record, calls, lines = _measure(seconds=2.0)
    turns = [(name, part) for part in ("step", "forward") for _ in range(3)
             for name in ("ours", "theirs")]  # fmt: skip
    assert calls == [
        ("ours", "prepare"),
        ("theirs", "prepare"),
        *turns,
        ("theirs", "closed"),
        ("ours", "closed"),
    ]
    assert record["subjects"]["ours"]["seconds"] == {"step": [1, 2, 3], "forward": [4, 5, 6]}
    summary = record["subjects"]["theirs"]["summary"]["step"]
    assert summary["median"] == 4.0 and summary["ratio"] == 2.0
    assert summary["p10"] == 2.4 and summary["p90"] == 5.6
    assert record["agreement"]["count"] == 6
    assert [re.sub(r"after .* s", "after N s", line) for line in lines] == [
        "made_up: ours is ready after N s",
        "made_up: theirs is ready after N s",
        "made_up: step, round 1 of 3: ours 1 s, theirs 2 s",
        "made_up: step, round 2 of 3: ours 2 s, theirs 4 s",
        "made_up: step, round 3 of 3: ours 3 s, theirs 6 s",
        "made_up: forward, round 1 of 3: ours 4 s, theirs 8 s",
        "made_up: forward, round 2 of 3: ours 5 s, theirs 10 s",
        "made_up: forward, round 3 of 3: ours 6 s, theirs 12 s",
    ]


def test_times_of_another_result_get_no_ratio():
    record, _, _ = _measure(loss=3.1)
    assert record["agreement"]["passed"] == {"ours": True, "theirs": False}
    assert record["subjects"]["theirs"]["summary"]["step"]["ratio"] is None


def test_the_rest_goes_on_without_a_worker_that_crashes():
    record, _, lines = _measure(crash_at=2)
    failures = [line for line in lines if "round" not in line and "ready" not in line]
    assert failures == ["made_up: theirs: ended with status -9\n    out of memory"]
    assert lines[-1] == "made_up: forward, round 3 of 3: ours 6 s"
    assert record["subjects"]["theirs"]["failure"].startswith("theirs: ended")
    assert len(record["subjects"]["ours"]["seconds"]["forward"]) == 3
    assert record["subjects"]["theirs"]["summary"]["step"]["ratio"] is None
    assert record["agreement"]["passed"] == {"ours": True}


def test_a_crash_is_reported_with_its_name_and_its_last_lines():
    worker = Worker("theirs", ("torch", "no such kind"), sys.executable, {}, 60)
    try:
        message = ""
        worker.ask({"do": "prepare", "task": {}})
    except WorkerFailed as error:
        message = str(error)
    finally:
        worker.close()
    assert message.startswith("theirs: ended with status 1\n")
    assert message.endswith("KeyError: ('torch', 'no such kind')")
