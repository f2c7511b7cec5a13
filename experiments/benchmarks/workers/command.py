"""A command as a user types it, timed from its start to its end or to a line of its output."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_CACHE_VARIABLES = ("GPT2_JAX_COMPILATION_CACHE", "TORCHINDUCTOR_CACHE_DIR")
_SHOWN = 10  # lines of a failed command


class Command:
    """Runs a command in a new scratch folder each time.

    Its words may contain the names of the task's entries in braces. `{scratch}` is the folder.
    """

    facts: dict[str, Any]

    def __init__(self, task: dict[str, Any]) -> None:
        """Fills in the words; with a warm cache, runs the command once to fill the cache."""
        self.facts = {}
        self._options = task["options"]
        self._words = {key: value for key, value in task.items() if isinstance(value, str)}
        self._cache = Path(task["folder"]) / "compiled" / task["subject"].replace(" ", "_")
        if self._options.get("cache") == "warm":
            self._once()

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times the command, and answers what the pattern `answer` finds in its output."""
        seconds, values = 0.0, []
        for _ in range(count):
            took, output = self._once()
            seconds += took
            if pattern := self._options.get("answer"):
                values = [float(value) for value in re.findall(pattern, output)[-1:]]
        return {"seconds": seconds / count, "values": values}

    def _once(self) -> tuple[float, str]:
        scratch = tempfile.mkdtemp()
        words = {**self._words, "scratch": scratch}
        command = [word.format(**words) for word in self._options["command"]]
        cache = Path(scratch) / "cache" if self._options.get("cache") == "cold" else self._cache
        environment = os.environ | {name: str(cache) for name in _CACHE_VARIABLES}
        try:
            return self._time(command, environment)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _time(self, command: list[str], environment: dict[str, str]) -> tuple[float, str]:
        until = self._options.get("until")
        output = []
        began = time.perf_counter()
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,  # ours carries requests
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                output.append(line)
                if until and re.search(until, line):
                    seconds = time.perf_counter() - began
                    process.kill()
                    return seconds, "".join(output)
            status = process.wait()
        seconds = time.perf_counter() - began
        if status or until:
            shown = "".join(output[-_SHOWN:])
            missing = f" without a line like {until!r}" if until else ""
            raise RuntimeError(f"{' '.join(command)} ended with {status}{missing}:\n{shown}")
        return seconds, "".join(output)


def prepare(task: dict[str, Any]) -> Command:
    """Returns a command."""
    return Command(task)
