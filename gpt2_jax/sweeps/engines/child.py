"""Runs a command on some cores, and has it end with the process that started this one.

`python -I -S child.py CORES PARENT COMMAND...`: CORES is a list such as `0,2`, or `all`, and PARENT
the number of the process that must be alive. This is a script, and not run between fork and exec,
because a fork of a process that has threads may hang. It needs only the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def main(words: Sequence[str]) -> None:
    """Replaces this process by the command, which keeps its cores and its death signal.

    When the parent dies, Linux sends the command SIGTERM, so that it saves and ends. Elsewhere it
    goes on, and the next start of the sweep waits for it.
    """
    cores, parent, *command = words
    if cores != "all" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    end_with_parent = getattr(ctypes.CDLL(None), "prctl", None)  # only Linux has it
    if end_with_parent is not None:
        end_with_parent(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died just before
        sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
