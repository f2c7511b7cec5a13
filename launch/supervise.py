#!/usr/bin/env python3
"""Runs a gpt2-jax command and starts it again when it ends in a way that another start cures.

    launch/supervise.py -- gpt2-jax train --config configs/gpt2_small.py --workdir gs://bucket/run

Starts again after 75 (stopped and saved), 77 (hung, or lost its peers), 134 (aborted: JAX does so
when a peer has died), 137 (killed) and 143 (by a SIGTERM that did not come through here). Anything
else ends the supervisor with the same status: 0 (done), 2 (bad config), 76 (numbers went bad), 78
(storage failed). Between starts it waits, twice as long each time up to --max_backoff; a run that
lasted --healthy seconds resets that, and too many shorter ones in a row end it. SIGTERM and SIGINT
are passed on, and then nothing is started again.
Needs the standard library only.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

RESTARTED = {
    75: "stopped and saved",
    77: "hung, or lost its peers",
    134: "aborted, as when a peer has died",
    137: "killed",
    143: "told to end before it could save",
}


def main(argv: list[str] | None = None) -> int:
    """Parses the command line, supervises the command and returns the exit status."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    if args.dry_run:
        print(shlex.join(args.command))
        return 0
    if args.status_file:
        args.status_file.unlink(missing_ok=True)
    status = _Supervisor(args).run()
    if args.status_file:
        args.status_file.write_text(f"{status}\n")
    return status


def _parse(argv: list[str]) -> argparse.Namespace:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        usage="launch/supervise.py [flags] -- COMMAND...",
        description=lines[0],
        epilog="\n".join(lines[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    seconds = {"type": _seconds, "metavar": "SECONDS"}
    parser.add_argument(
        "--backoff", default=5.0, **seconds, help="before the first new start (default 5)"
    )
    # Below the 300 s that processes wait for each other, so that those of several machines meet.
    parser.add_argument(
        "--max_backoff", default=120.0, **seconds, help="longest wait between starts (default 120)"
    )
    parser.add_argument(
        "--healthy",
        default=600.0,
        **seconds,
        help="a run this long has made progress: it resets wait and count (default 600)",
    )
    parser.add_argument(
        "--max_fast_failures",
        type=int,
        default=8,
        metavar="N",
        help="give up after so many shorter runs in a row (default 8)",
    )
    parser.add_argument(
        "--status_file",
        type=Path,
        metavar="FILE",
        help="where the exit status is written once nothing is started again",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the command, run nothing")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what to run, after --")
    # argparse's usage dump would bury the one line that says what is wrong.
    parser.error = _refuse
    args = parser.parse_args(argv)
    if not args.command:
        _refuse("name a command after --")
    return args


def _refuse(message: str) -> NoReturn:
    print(f"error: {message} (see launch/supervise.py --help)", file=sys.stderr)
    sys.exit(2)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


class _Supervisor:
    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._process: subprocess.Popen[bytes] | None = None
        self._told_to_stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._forward)

    def run(self) -> int:
        fast_failures = 0
        while True:
            began = time.monotonic()
            status = self._run_once()
            if status not in RESTARTED or self._told_to_stop.is_set():
                return status
            lasted = time.monotonic() - began
            fast_failures = 0 if lasted >= self._args.healthy else fast_failures + 1
            ended = f"ended with {status} ({RESTARTED[status]}) after {lasted:.0f} s"
            if fast_failures >= self._args.max_fast_failures:
                _say(f"{ended}; giving up after {fast_failures} short runs in a row")
                return status
            wait_s = self._args.backoff * 2 ** max(fast_failures - 1, 0)
            wait_s = min(wait_s, self._args.max_backoff)
            _say(f"{ended}; starting it again in {wait_s:g} s")
            if self._told_to_stop.wait(wait_s):
                return status

    def _run_once(self) -> int:
        try:
            # A session of its own: the terminal's Ctrl-C comes through us, once.
            self._process = subprocess.Popen(self._args.command, start_new_session=True)
        except OSError as error:
            _refuse(f"can't run {self._args.command[0]}: {error.strerror}")
        if self._told_to_stop.is_set():  # came between the wait and the start
            self._process.terminate()
        # Short waits, because a signal's handler runs between them.
        while True:
            try:
                returncode = self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                continue
            # As a shell has it: 128 + the signal for a process that a signal ended.
            return returncode if returncode >= 0 else 128 - returncode

    def _forward(self, number: int, frame: object) -> None:
        self._told_to_stop.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def _say(text: str) -> None:
    print(f"supervise: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
