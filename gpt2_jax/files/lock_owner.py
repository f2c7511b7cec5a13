"""Which process holds a workdir, and whether it is still there."""

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
class Holder:
    """Who holds a lock, as the lock's content tells.

    Attributes:
      since: when it took the lock.
      place: the machine, since its last start, and the container in which `pid` means something;
        empty where that can't be told.
      born: when the process began, for a pid may be used again.
      token: tells this holder from all others.
    """

    host: str = "?"
    pid: int = 0
    since: str = "?"
    place: str = ""
    born: str | None = None
    token: str = ""

    @classmethod
    def this(cls) -> Holder:
        """This process, from now on."""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        pid = os.getpid()
        return cls(socket.gethostname(), pid, since, _place(), _born(pid), secrets.token_hex(8))

    @classmethod
    def parse(cls, content: bytes) -> Holder:
        """The holder that `to_bytes` wrote; one of whom nothing is known for any other content."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):  # not written yet, or by another version
            return cls()

    def to_bytes(self) -> bytes:
        """A line of JSON."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    def is_alive(self) -> bool | None:
        """Whether the process runs; None for one whose machine is another."""
        if not self.place or self.place != _place():
            return None
        return self.born is not None and self.born == _born(self.pid)

    def __str__(self) -> str:
        if not self.pid:
            return "another trainer"
        return f"a trainer on host {self.host}, process {self.pid}, since {self.since}"


def in_use(workdir: Path, holder: Holder) -> UserError:
    """The refusal of a workdir that another trainer has."""
    return UserError(
        f"--workdir {workdir} is in use by {holder}: wait for it, stop it, or name another"
    )


def _place() -> str:
    """Names this machine since it was started, and the space of process ids; "" if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """When a process of this machine began; None if it has ended, or that can't be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): the name, in parentheses, may hold anything; state is field 3 and start time 22.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
