"""The worker's side of the conversation: one JSON object a line, asked over stdin, told on stdout.

The first request is {"do": "prepare", "task": ...}, and its answer holds facts, such as the seconds
of compilation. Every further one is {"do": "run", "part": ..., "count": ...}; its answer holds
`seconds`, the time of one repetition, and evidence, such as `losses`. An error ends the process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol


class Measured(Protocol):
    """Does a task, part by part, and times it."""

    facts: dict[str, Any]

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Does a part `count` times; returns `seconds` of one repetition, and evidence."""
        ...


def converse(prepare: Callable[[dict[str, Any]], Measured]) -> None:
    """Answers requests until standard input ends.

    What libraries write to standard output goes to standard error, or it would end up between the
    answers.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    measured: Measured | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "prepare":
            measured = prepare(request["task"])
            answer = measured.facts
        else:
            assert measured is not None
            answer = measured.run(request["part"], request["count"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
