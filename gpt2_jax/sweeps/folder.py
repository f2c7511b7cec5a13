"""The folder of a sweep: what is in it, and whether it is the folder of this sweep.

- sweep.json: what the sweep compares
- lock: is there while a process runs the sweep
- points/NAME/point.json: the point, with the command that runs it
- points/NAME/status.json: how its last attempt has ended
- points/NAME/log.txt: what its command has printed
- points/NAME/run_info.json: what its last attempt ran on, and the programs that it compiled
- points/NAME/run: its workdir
- results.csv: a line for each point
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.errors import NOT_JSON, UserError, short_repr
from gpt2_jax.files.atomic import write_file
from gpt2_jax.sweeps.points import Point
from gpt2_jax.sweeps.stages import Stages

DONE, DIVERGED, FAILED, WAITING = "done", "diverged", "failed", "waiting"
STATES: tuple[str, ...] = (DONE, DIVERGED, FAILED, WAITING)
# A later start does not run these points again.
FINAL = (DONE, DIVERGED)

_BETWEEN = "; "  # texts of the same fact about different points
SAME = ("base", "metric", "delta", "baseline", "stages")
"""The values of sweep.json that may not change while a folder is that of one sweep."""


@dataclasses.dataclass(frozen=True)
class Status:
    """Says how the last attempt at a point has ended.

    Attributes:
      exit_status: of the command, as a shell reports it; None while it runs, or if it was killed
        together with the sweep.
      state: `done`, `diverged`, `failed`, or `waiting` for its first attempt or another.
      message: the last line of a command that did not succeed.
      seconds: of all attempts.
      attempts: how many there were.
      programs_compiled: by all attempts that could say so.
      programs_loaded: likewise, from the compilation cache.
      start: what the last attempt belongs to: one start of the sweep, or one array job.
      earlier: the exit statuses of the attempts before the last one that belong to the same start.
    """

    exit_status: int | None = None
    state: str = WAITING
    message: str = ""
    seconds: float = 0.0
    attempts: int = 0
    programs_compiled: int = 0
    programs_loaded: int = 0
    start: str = ""
    earlier: Sequence[int] = ()


class SweepFolder:
    """Reads and writes the files of a sweep's folder."""

    def __init__(self, path: Path) -> None:
        """Takes the folder, which may be missing."""
        self.path = path

    def point(self, name: str) -> Path:
        """Returns the folder of a point."""
        return self.path / "points" / name

    def workdir(self, name: str) -> Path:
        """Returns the workdir of a point."""
        return self.point(name) / "run"

    def run_info(self, name: str) -> Path:
        """Returns the file in which the command of a point leaves its note (`run_info.py`)."""
        return self.point(name) / "run_info.json"

    def check(self, stages: Stages) -> None:
        """Refuses a folder that holds something else than this sweep, or other points than its.

        The sweep may have more points than when it was started, as after seeds were added.

        Raises:
          UserError: naming what differs.
        """
        if not self.path.exists():
            return
        if not (self.path / "sweep.json").exists():
            ours = ("lock", "sweep.json.", ".")  # left by a start that was killed at once
            names = sorted(each.name for each in self.path.iterdir())
            others = [name for name in names if not name.startswith(ours)]
            if others == ["points"] and not self._strange_points(stages):
                others = []  # the commands of --print_commands were run first
            if others:
                raise UserError(
                    f"--out {self.path} is not the folder of a sweep: it has {others[0]}; name a "
                    "new folder"
                )
            return
        before, now = read_object(self.path / "sweep.json"), describe(stages, "")
        if changed := [key for key in SAME if before.get(key) != now[key]]:
            differences = ", ".join(
                f"{key} ({short_repr(before.get(key))} -> {short_repr(now[key])})"
                for key in changed
            )
            raise UserError(
                f"--out {self.path} holds another sweep: {differences}; restore it, or choose "
                "another --out"
            )
        if others := self.others(stages.known):
            raise UserError(
                f"--out {self.path} holds another sweep: {others[0]} is none of this one's points; "
                "restore the sweep file and the base config, or choose another --out"
            )

    def _strange_points(self, stages: Stages) -> list[str]:
        """Returns the names of folders of points that the sweep does not have."""
        names = {point.name for points in stages.known.values() for point in points}
        return sorted(
            each.name for each in (self.path / "points").iterdir() if each.name not in names
        )

    def others(self, known: Mapping[str, Sequence[Point]]) -> list[str]:
        """Returns the names of points in the folder that are of these stages, but not in them."""
        folder = self.path / "points"
        names = {point.name for points in known.values() for point in points}
        found = sorted(each.name for each in folder.iterdir()) if folder.exists() else []
        paths = {name: self.point(name) / "point.json" for name in found if name not in names}
        return [
            name
            for name, path in paths.items()
            if path.exists() and read_object(path).get("stage") in known
        ]

    def write_sweep(self, stages: Stages, sweep_file: str) -> None:
        """Writes sweep.json and a copy of the sweep file, if there is one, as it is now.

        What sweep.json says of the environment stays.
        """
        path = self.path / "sweep.json"
        before = _environment(path, read_object(path)) if path.exists() else {}
        _write_json(path, describe(stages, sweep_file) | {"environment": before})
        if (file := Path(sweep_file)).is_file():
            _write(self.path / file.name, file.read_bytes())

    def add_environment(self, found: Iterable[Mapping[str, str]]) -> None:
        """Adds to sweep.json what points ran on; where they differ, all texts are kept."""
        path = self.path / "sweep.json"
        values = read_object(path)
        environment = _environment(path, values)
        for each in found:
            for name, text in each.items():
                before = environment.get(name, "").split(_BETWEEN)
                if text not in before:
                    environment[name] = _BETWEEN.join([*filter(None, before), text])
        _write_json(path, values | {"environment": environment})

    def write_point(self, point: Point, base: str) -> None:
        """Writes point.json of a point, and makes its folder."""
        folder = self.point(point.name)
        folder.mkdir(parents=True, exist_ok=True)
        flags = point.flags(base, self.workdir(point.name))
        values = {
            "name": point.name,
            "stage": point.stage,
            "arm": point.arm,
            "seed": point.seed,
            "overrides": dict(point.overrides),
            "config_hash": point.config_hash,
            "command": shlex.join(["gpt2-jax", "train", *flags]),
        }
        _write_json(folder / "point.json", values)

    def status(self, name: str) -> Status:
        """Returns the status of a point; one that was never started is waiting."""
        path = self.point(name) / "status.json"
        if not path.exists():
            return Status()
        values = read_object(path)
        known = {field.name for field in dataclasses.fields(Status)}
        return Status(**{key: value for key, value in values.items() if key in known})

    def write_status(self, name: str, status: Status) -> None:
        """Writes the status of a point."""
        _write_json(self.point(name) / "status.json", dataclasses.asdict(status))


def describe(stages: Stages, sweep_file: str) -> dict[str, Any]:
    """Returns the content of sweep.json."""
    sweep = stages.sweep
    return {
        "sweep_file": sweep_file,
        "base": sweep.base,
        "metric": sweep.metric,
        "delta": sweep.delta,
        "baseline": stages.baseline,
        "stages": list(sweep.stages),
    }


def _environment(path: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Returns a copy of what sweep.json says of the environment."""
    environment = values.get("environment", {})
    if not isinstance(environment, dict):
        raise UserError(f"{path}: environment must be an object, not {short_repr(environment)}")
    return {str(name): str(text) for name, text in environment.items()}


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
      UserError: if it cannot be read or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except NOT_JSON as error:
        raise UserError(f"cannot read {path} ({error}): restore it, or remove it") from error
    if not isinstance(values, dict):
        raise UserError(f"cannot read {path}: it is not a JSON object; restore it, or remove it")
    return values


def _write_json(path: Path, values: dict[str, Any]) -> None:
    _write(path, (json.dumps(values, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    # Unchanged content is not written again: a point that is done stays as it is.
    if not path.exists() or path.read_bytes() != content:
        write_file(path, content)
