"""Which process owns the lock of a folder, and whether it still runs."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import socket
import time
from pathlib import Path

from gpt2_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class LockOwner:
    """Identifies the process that owns a lock, as the lock's file records it.

    Attributes:
      host: the name of its machine; "?" if nothing is known of the owner.
      pid: its process id; 0 if nothing is known of the owner.
      since: when it took the lock.
      pid_space: identifies the machine since its last boot and the container, in which `pid` is
        valid; empty if the operating system does not tell, as on macOS.
      started: when the process started, since process ids are used again; None if unknown.
      token: a random string, different for every owner.
    """

    host: str = "?"
    pid: int = 0
    since: str = "?"
    pid_space: str = ""
    started: str | None = None
    token: str = ""

    @classmethod
    def this_process(cls) -> LockOwner:
        """Returns this process as an owner from now on."""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        pid = os.getpid()
        token = secrets.token_hex(8)
        return cls(socket.gethostname(), pid, since, _pid_space(), _start_time(pid), token)

    @classmethod
    def parse(cls, content: bytes) -> LockOwner:
        """Returns the owner that `to_bytes` wrote, or an unknown one for any other content."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):  # not written yet, or written by another version
            return cls()

    def to_bytes(self) -> bytes:
        """Returns the owner as one line of JSON."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    def is_alive(self) -> bool | None:
        """Returns whether the process runs; None if that is unknown, as on another machine."""
        if not self.pid_space or self.pid_space != _pid_space():
            return None
        return self.started is not None and self.started == _start_time(self.pid)

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        return f"process {self.pid} on host {self.host}, since {self.since}"


class InUse(UserError):
    """Reports that another process has the lock of a folder."""


def in_use_error(name: str, activity: str, owner: LockOwner) -> InUse:
    """Returns the error for a folder that another process has locked.

    Args:
      name: what the user calls the folder, such as "--workdir runs/small".
      activity: what its owner does with it, such as "in use".
      owner: the process that has the lock.
    """
    return InUse(
        f"{name} is {activity} by {owner}: wait for that process, stop it, or choose another place"
    )


def _pid_space() -> str:
    """Identifies this machine since its boot, and its space of process ids; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # there is no /proc on macOS
        return ""


def _start_time(pid: int) -> str | None:
    """Returns when a process of this machine started; None if it has ended, or if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): the name, in parentheses, may hold anything; state is field 3 and start time 22.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
