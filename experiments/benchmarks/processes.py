"""The driver's side of the conversation with a worker, which may crash or hang."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_SHOWN = 5  # lines of standard error
_ENDING_SECONDS = 10.0


class WorkerFailed(Exception):
    """Says which worker failed, and the last lines that it wrote to standard error."""


class Worker:
    """Holds one process that does one task, and waits between the requests."""

    def __init__(
        self,
        name: str,
        words: tuple[str, ...],
        python: str,
        environment: Mapping[str, str],
        timeout: float,
    ) -> None:
        """Starts the process.

        Args:
          name: what errors call it.
          words: program and kind.
          python: the interpreter.
          environment: what differs from the driver's own environment.
          timeout: seconds to wait for an answer.
        """
        self.name, self._timeout = name, timeout
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            [python, "-m", "experiments.benchmarks.workers", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def send(self, request: Mapping[str, Any]) -> None:
        """Sends a request, whose answer `receive` returns."""
        assert self._process.stdin is not None
        # If it has ended, `receive` says so.
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Returns the next answer.

        Raises:
          WorkerFailed: if the process has ended, or the answer takes too long.
        """
        assert self._process.stdout is not None
        if not self._selector.select(self._timeout):
            self._process.kill()
            raise WorkerFailed(f"{self.name}: no answer in {self._timeout:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise WorkerFailed(f"{self.name}: ended with status {status}\n{self._last_lines()}")
        return json.loads(line)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request and returns its answer; see `receive`."""
        self.send(request)
        return self.receive()

    def close(self) -> None:
        """Ends the process."""
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _last_lines(self) -> str:
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-_SHOWN:])
