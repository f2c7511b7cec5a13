"""The files by which the processes of a slice agree on the point that they train next.

Process 0 leads: it alone decides, and writes leader.json. Each other process writes a file of its
own, follower-K.json. They are in the folder `slice` of the sweep's folder, which all processes
share, as they have to share the workdir of a run; so no network connection between them is needed,
and a bucket serves as well as a disk. A turn goes like this:

1. the leader asks all to be ready for the turn, and goes on writing its file, so that it is known
   to live: what a killed leader has left does not change, and is not obeyed;
2. each follower ends what it still runs of an earlier turn, and says that it is ready;
3. once all are, the leader gives the flags of the point, and all start the command that trains: its
   processes find each other as those of a single run do;
4. each follower says how its process has ended, and the leader decides what comes next.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from gpt2_jax.errors import NOT_JSON, StorageError
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.bucket import read_object
from gpt2_jax.files.paths import is_remote

READY, START, OVER = "ready", "start", "over"

_Message = TypeVar("_Message", "Order", "Answer")


@dataclasses.dataclass(frozen=True)
class Order:
    """Holds what the leader wants.

    Attributes:
      session: identifies the leader's process.
      turn: the number of the turn.
      wanted: `READY` for the turn, `START` of its command, or `OVER`: the end of the sweep.
      flags: of the command.
      variables: {name: value} of its environment.
      exit_status: of the sweep, which is over.
      beat: counts up while the leader lives.
    """

    session: str = ""
    turn: int = 0
    wanted: str = OVER
    flags: tuple[str, ...] = ()
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    exit_status: int = 0
    beat: int = 0


@dataclasses.dataclass(frozen=True)
class Answer:
    """Holds what a follower says.

    Attributes:
      session: of the order that it has read.
      turn: likewise.
      ready: whether it waits for the start of the turn, or has started.
      exit_status: of its command; None if that has not ended.
      message: the last line of a command that did not succeed.
      stopping: whether the follower was asked to stop.
    """

    session: str = ""
    turn: int = 0
    ready: bool = False
    exit_status: int | None = None
    message: str = ""
    stopping: bool = False


class SliceFiles:
    """Reads and writes the files."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder of the sweep."""
        self._folder = folder / "slice"

    @property
    def poll_s(self) -> float:
        """Returns the seconds between two looks at a file."""
        return 2.0 if is_remote(self._folder) else 0.1

    def order(self) -> Order | None:
        """Returns what the leader wants, or None if there is no file yet."""
        return _read(self._folder / "leader.json", Order)

    def answer(self, process: int) -> Answer:
        """Returns what a follower says."""
        return _read(self._folder / f"follower-{process}.json", Answer) or Answer()

    def write_order(self, order: Order) -> None:
        """Writes what the leader wants, and makes the folder.

        Raises:
          OSError: if that fails.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(self._folder / "leader.json", order)

    def write_answer(self, process: int, answer: Answer) -> None:
        """Writes what a follower says; the leader has made the folder.

        Raises:
          OSError: if that fails.
        """
        _write(self._folder / f"follower-{process}.json", answer)


def _read(path: Path, kind: type[_Message]) -> _Message | None:
    """Returns the message in a file, or None if it is missing or cannot be read now."""
    try:
        content = read_object(path) if is_remote(path) else path.read_bytes()
        values: dict[str, Any] = json.loads(content or b"null")
        if "flags" in values:
            values["flags"] = tuple(values["flags"])
        return kind(**values)
    except (StorageError, *NOT_JSON, TypeError):
        return None


def _write(path: Path, message: Order | Answer) -> None:
    write_file(path, json.dumps(dataclasses.asdict(message)).encode() + b"\n")
