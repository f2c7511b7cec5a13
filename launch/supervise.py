#!/usr/bin/env python3
"""Runs a gpt2-jax command, and restarts it if it ends in a way that a restart can fix.

    launch/supervise.py -- gpt2-jax train --config configs/gpt2_small.py --workdir gs://bucket/run

It restarts after 75 (stopped and saved), 77 (hung, or lost its peers), 134 (aborted: JAX does so if
a peer has died), 137 (killed) and 143 (ended by a SIGTERM that was not sent through this script).
Any other status ends the supervisor with the same status: 0 (done), 2 (bad config), 76 (numbers
went bad), 78 (storage failed). It waits before each restart, twice as long each time up to
--max_backoff. A run that lasted --healthy seconds resets the wait; too many shorter ones in a row
end the supervisor. SIGTERM and SIGINT are passed on to the command, which is then not restarted.
It needs only the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from command_line import MISTAKE, CommandLine, cannot_run, count, refuse, seconds, shell_status

RESTARTED = {
    75: "stopped and saved",
    77: "hung, or lost its peers",
    134: "aborted, as when a peer has died",
    137: "killed",
    143: "terminated before it could save",
}


def main(argv: list[str] | None = None) -> int:
    """Parses the command line, supervises the command and returns the exit status."""
    args = _parse(argv)
    if args.dry_run:
        print(shlex.join(args.command))
        return 0
    if args.status_file:
        _clear(args.status_file)
    status = MISTAKE  # if the command cannot be run
    try:
        status = _Supervisor(args).run()
    finally:
        if args.status_file:
            args.status_file.write_text(f"{status}\n")
    return status


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandLine("launch/supervise.py", __doc__)
    wait = {"type": seconds, "metavar": "SECONDS"}
    parser.add_argument(
        "--backoff", default=5.0, **wait, help="wait before the first restart (default: 5)"
    )
    # Below the 300 s that processes wait for each other, so that several machines find each other.
    parser.add_argument(
        "--max_backoff", default=120.0, **wait, help="longest wait before a restart (default: 120)"
    )
    parser.add_argument(
        "--healthy",
        default=600.0,
        **wait,
        help="a run this long counts as healthy and resets wait and count (default: 600)",
    )
    parser.add_argument(
        "--max_fast_failures",
        type=count,
        default=8,
        metavar="N",
        help="give up after N shorter runs in a row (default: 8)",
    )
    parser.add_argument(
        "--status_file",
        type=Path,
        metavar="FILE",
        help="file for the exit status, written when the supervisor ends",
    )
    return parser.parse(argv)


def _clear(status_file: Path) -> None:
    """Removes the file of an earlier run, and refuses a file that cannot be written."""
    try:
        status_file.touch()
        status_file.unlink()
    except OSError as error:
        refuse(f"cannot write --status_file {status_file}: {error.strerror}")


class _Supervisor:
    """Runs the command until it ends with a status that is not restarted."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._process: subprocess.Popen[bytes] | None = None
        self._stop_requested = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._forward)

    def run(self) -> int:
        fast_failures = 0
        while True:
            began = time.monotonic()
            status = self._run_once()
            if status == 0 or self._stop_requested.is_set():
                return status
            lasted = time.monotonic() - began
            reason = f" ({RESTARTED[status]})" if status in RESTARTED else ""
            ended = f"the command ended with {status}{reason} after {lasted:.0f} s"
            if status not in RESTARTED:
                _say(f"{ended}, which a restart would not fix")
                return status
            fast_failures = 0 if lasted >= self._args.healthy else fast_failures + 1
            if fast_failures >= self._args.max_fast_failures:
                _say(
                    f"{ended}; giving up after {fast_failures} run(s) in a row of less than "
                    f"--healthy {self._args.healthy:g} s"
                )
                return status
            wait_s = self._args.backoff * 2 ** max(fast_failures - 1, 0)
            wait_s = min(wait_s, self._args.max_backoff)
            _say(f"{ended}; restarting it in {wait_s:g} s")
            if self._stop_requested.wait(wait_s):
                return status

    def _run_once(self) -> int:
        try:
            # A session of its own, so that Ctrl-C reaches it once, through this process.
            self._process = subprocess.Popen(self._args.command, start_new_session=True)
        except OSError as error:
            cannot_run(self._args.command[0], error)
        if self._stop_requested.is_set():  # a signal came between the wait and the start
            self._process.terminate()
        # Waits are short because signal handlers run between them.
        while True:
            try:
                returncode = self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                continue
            return shell_status(returncode)

    def _forward(self, number: int, frame: object) -> None:
        self._stop_requested.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # the log may be on a full disk
        print(f"supervise: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
