#!/usr/bin/env python3
r"""Runs a gpt2-jax command as several processes of one run on this machine.

    launch/local.py --processes 4 --devices_per_process 2 -- \
        gpt2-jax train --config configs/quickstart.py --workdir runs/local --config.mesh.fsdp=2

The first process writes to the terminal; of the others, the last lines of the one that fails first
are shown. Ctrl-C and SIGTERM are passed on to all of them, and a second signal, half a second later
or more, kills them. If one fails, the others are killed. The exit status is that of the process
that failed first, 75 if they were stopped and have saved, and 0 otherwise. It needs only the
standard library.
"""

from __future__ import annotations

import argparse
import collections
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

from command_line import CommandLine, cannot_run, count, seconds, shell_status

PREEMPTED = 75
_TAIL_LINES = 20
_POLL_S = 0.05
# Signals this close are one request: `timeout` sends one to the process and one to its group.
_SAME_REQUEST_S = 0.5


def main(argv: list[str] | None = None) -> int:
    """Parses the command line, runs the processes and returns the exit status."""
    args = _command_line().parse(argv)
    port = args.port or _free_port()
    settings = [_settings(args, port, rank) for rank in range(args.processes)]
    if args.dry_run:
        for setting in settings:
            words = [f"{name}={value}" for name, value in setting.items()]
            print(shlex.join(["env", *words, *args.command]))
        return 0
    return _Group(args.command, settings, args.all_output, args.grace).wait()


def _command_line() -> CommandLine:
    parser = CommandLine("launch/local.py", __doc__)
    parser.require("--processes", "N", type=count, help="how many processes to start")
    parser.add_argument(
        "--devices_per_process",
        type=count,
        metavar="N",
        help="CPU devices of each process; by default a process uses the devices that JAX finds",
    )
    parser.add_argument(
        "--port", type=_port, metavar="N", help="port of process 0; by default a free one"
    )
    parser.add_argument(
        "--grace",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long the others may run after one has succeeded (default: 60)",
    )
    parser.add_argument(
        "--all_output", action="store_true", help="show the output of all processes, by number"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a port between 1 and 65535, not {text!r}")
    return int(text)


def _settings(args: argparse.Namespace, port: int, rank: int) -> dict[str, str]:
    """Returns the environment variables of one process beside those that it inherits."""
    settings = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": str(args.processes),
        "JAX_PROCESS_ID": str(rank),
    }
    if args.devices_per_process:
        settings |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(args.devices_per_process)}
    return settings


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class _Group:
    """Starts, signals and ends the processes of a run together."""

    def __init__(
        self, command: list[str], settings: list[dict[str, str]], all_output: bool, grace_s: float
    ) -> None:
        self._grace_s = grace_s
        self._asked: float | None = None  # when they were asked to stop
        self._processes: list[subprocess.Popen[bytes]] = []
        self._tails: list[collections.deque[str]] = []
        self._readers: list[threading.Thread] = []
        # Set before the first process starts, so that no signal misses any of them.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._forward)
        for rank, setting in enumerate(settings):
            # A session of its own, so that Ctrl-C reaches it once, through this process.
            try:
                process = subprocess.Popen(
                    command,
                    env=os.environ | setting,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if rank else None,
                    stderr=subprocess.STDOUT if rank else None,
                    start_new_session=True,
                )
            except OSError as error:
                self._kill()
                cannot_run(command[0], error)
            self._processes.append(process)
            self._tails.append(collections.deque(maxlen=_TAIL_LINES))
            if rank:
                reader = threading.Thread(
                    target=self._read, args=(rank, process, all_output), daemon=True
                )
                reader.start()
                self._readers.append(reader)

    def wait(self) -> int:
        """Waits for all processes; kills the rest if one fails or the grace period ends."""
        ended: dict[int, int] = {}  # rank -> status, in the order they ended
        deadline = float("inf")
        while len(ended) < len(self._processes):
            for rank, process in enumerate(self._processes):
                if rank not in ended and process.poll() is not None:
                    ended[rank] = shell_status(process.returncode)
                    succeeded = ended[rank] in (0, PREEMPTED)
                    # The others fail because of the first failure, which is the one to report.
                    grace_s = self._grace_s if succeeded else 0.0
                    deadline = min(deadline, time.monotonic() + grace_s)
            if time.monotonic() >= deadline:
                self._kill()
            time.sleep(_POLL_S)
        for reader in self._readers:
            reader.join(timeout=5)
        failed = [rank for rank, status in ended.items() if status not in (0, PREEMPTED)]
        if failed:
            self._quote(failed[0], ended[failed[0]])
            return ended[failed[0]]
        return PREEMPTED if PREEMPTED in ended.values() else 0

    def _forward(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._asked is not None:
            if now - self._asked >= _SAME_REQUEST_S:
                self._kill()
            return
        self._asked = now
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _kill(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()

    def _read(self, rank: int, process: subprocess.Popen[bytes], show: bool) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            self._tails[rank].append(text)
            if show:
                # In one piece: print() writes the end of a line apart, and other threads between.
                sys.stderr.write(f"[{rank}] {text}\n")
                sys.stderr.flush()

    def _quote(self, rank: int, status: int) -> None:
        for line in self._tails[rank]:
            print(f"[{rank}] {line}", file=sys.stderr)
        print(f"process {rank} of {len(self._processes)} ended with {status}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
