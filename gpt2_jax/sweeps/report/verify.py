"""Runs the first steps of a recorded point again, and compares its metrics line by line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2_jax.config.file import split_argument
from gpt2_jax.errors import Gpt2JaxError, UserError, did_you_mean
from gpt2_jax.parallel.cpu import available_cores
from gpt2_jax.sweeps.engines import child
from gpt2_jax.sweeps.folder import DONE, read_object
from gpt2_jax.sweeps.points import NOT_LEARNED
from gpt2_jax.sweeps.report.outcomes import (
    Line,
    Outcome,
    SweepOutcomes,
    read_lines,
    read_sweep,
)
from gpt2_jax.sweeps.report.thinning import rounded

EARLY_STEPS, TOLERANCE = 10, 1e-3
"""The first steps, and the relative difference up to which their metrics match.

On the same machine, cores and versions they are equal. Other processors, versions and numbers of
cores round otherwise; in the first steps such differences have not grown yet.
"""
LATER_TOLERANCE = 1e-2
"""The relative difference up to which later losses match.

By then, differences from rounding may have grown to those of another run with the same batches, and
the norms of gradients are shown, but not judged.
"""
_COMPARED = ("loss", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class Match:
    """Describes one number of one step.

    Attributes:
      step: of the run.
      metric: its name.
      recorded: the number in the record.
      again: the number of the run that was made again.
    """

    step: int
    metric: str
    recorded: float
    again: float

    @property
    def difference(self) -> float:
        """Returns the difference relative to the recorded number."""
        return abs(self.again - self.recorded) / max(abs(self.recorded), sys.float_info.min)

    @property
    def is_equal(self) -> bool:
        """Returns whether the numbers are equal, as far as the record has digits."""
        return self.recorded in (self.again, rounded(self.again))

    @property
    def is_judged(self) -> bool:
        """Returns whether a difference would count."""
        return self.step <= EARLY_STEPS or self.metric != "grad_norm"

    @property
    def matches(self) -> bool:
        """Returns whether the difference is within the tolerance, or is not judged."""
        is_late = self.step > EARLY_STEPS and self.metric == "loss"
        tolerance = LATER_TOLERANCE if is_late else TOLERANCE
        return not self.is_judged or self.difference <= tolerance


_CONFIG_FILE = """from gpt2_jax.config import default


def get_config():
    config = default()
    for section, values in {values}.items():
        config[section].update(values)
    return config
"""

Train = Callable[[Sequence[str]], int]


def run_command(words: Sequence[str], cores: int | None = None) -> int:
    """Runs `gpt2-jax` with these words in a process of its own, and returns its exit status.

    Args:
      words: after `gpt2-jax`.
      cores: how many cores it may use, all by default; of no effect where the system cannot tell.

    Raises:
      UserError: if this process has fewer.
    """
    command = [sys.executable, "-m", "gpt2_jax", *words]
    own = available_cores()
    if cores is not None and cores > len(own) > 0:
        raise UserError(f"--cores {cores}: this process may use {len(own)}")
    listed = ",".join(map(str, own[:cores])) if cores is not None and own else "all"
    starter = [sys.executable, "-I", "-S", child.__file__, listed, str(os.getpid())]
    done = subprocess.run([*starter, *command], stdout=subprocess.DEVNULL, check=False)
    return done.returncode


@dataclass(frozen=True)
class Verification:
    """Describes a point that was run again.

    Attributes:
      point: as it is recorded.
      matches: what was compared, in the order of the steps.
      knobs: sentences on knobs whose values differ from those of the recorded config.
    """

    point: Outcome
    matches: Sequence[Match]
    knobs: Sequence[str]


def verify(
    folder: Path,
    steps: int,
    train: Train | None = None,
    *,
    name: str | None = None,
    cores: int | None = None,
) -> Verification:
    """Runs a point of a sweep or a record again, in a temporary folder.

    Args:
      folder: of the sweep or the record.
      steps: after how many steps the run is stopped.
      train: runs a command; `run_command` by default.
      name: of the point; by default the last one that is done and has its metrics.
      cores: how many cores `run_command` uses; by default as many as the recorded run had, which
        give the same bits, if that is known and there are as many.

    Raises:
      UserError: if no such point is done and has its metrics, or none of them are so early.
      Gpt2JaxError: if the run fails.
    """
    sweep = read_sweep(folder)
    point = _choose(sweep.points, folder, name)
    cores = _recorded_cores(sweep) if cores is None else cores
    with tempfile.TemporaryDirectory() as place:
        workdir = Path(place) / "run"
        words = _words(point, workdir, steps)
        if not _has_config(words) and point.config:
            words = _with_recorded_config(words, point, Path(place) / "recorded.py")
        status = train(words) if train else run_command(words, cores)
        if status:
            raise Gpt2JaxError(f"{point.name} ended with status {status}: {point.command}")
        again = read_lines(workdir / "metrics.jsonl")
        config_path = workdir / "config.json"
        config = read_object(config_path) if config_path.exists() else {}
    recorded, repeated = _compared(point.lines), _compared(again)
    missing = float("nan")  # which matches nothing
    matches = [
        Match(step, name, value, repeated.get((step, name), missing))
        for (step, name), value in recorded.items()
        if step <= max((step for step, _ in repeated), default=0)
    ]
    if not matches:
        raise UserError(
            f"{point.name} has no metrics up to step {steps} that the run has too: give --steps a "
            "larger number"
        )
    return Verification(point, matches, _changed_knobs(point.config, config))


def _recorded_cores(sweep: SweepOutcomes) -> int | None:
    """Returns how many cores each point had, if all had as many and this process has them."""
    text = sweep.environment.get("cores", "")
    return int(text) if text.isdecimal() and 1 <= int(text) <= len(available_cores()) else None


def _choose(points: Sequence[Outcome], folder: Path, name: str | None) -> Outcome:
    names = [point.name for point in points]
    if name is not None and name not in names:
        hint = did_you_mean(name, names) or f"; it has {', '.join(names[:3])}"
        raise UserError(f"--point {name}: {folder} has no such point{hint}")
    usable = [
        point
        for point in points
        if point.state == DONE and point.lines and name in (None, point.name)
    ]
    if not usable:
        which = "no point is" if name is None else f"the point {name} is not both"
        raise UserError(f"{folder}: {which} done and recorded with a metrics.jsonl to compare with")
    return usable[-1]


def _changed_knobs(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns sentences on the knobs that make the run another one than the recorded one."""
    found = []
    for section, values in recorded.items():
        if section in NOT_LEARNED or not isinstance(values, dict):
            continue
        others = now.get(section, {})
        for knob, value in values.items():
            if knob in others and others[knob] != value:
                found.append(f"{section}.{knob} was {value!r} and is now {others[knob]!r}")
    return found


def _compared(lines: Sequence[Line]) -> dict[tuple[int, str], float]:
    """Returns {(step, metric): number} of what is compared."""
    return {
        (line["step"], name): float(line[name])
        for line in lines
        for name in _COMPARED
        if isinstance(line.get(name), (int, float))
    }


def _words(point: Outcome, workdir: Path, steps: int) -> list[str]:
    """Returns the words after `gpt2-jax` that train the point in another folder."""
    words = shlex.split(point.command)
    if words[:2] != ["gpt2-jax", "train"] or "--workdir" not in words[:-1]:
        raise UserError(f"{point.name}: the command is no gpt2-jax train --workdir: {words}")
    words[words.index("--workdir") + 1] = str(workdir)
    return [*words[1:], "--stop_at_step", str(steps)]


def _has_config(words: Sequence[str]) -> bool:
    """Returns whether the config of a command is there."""
    try:
        return split_argument(words[words.index("--config") + 1])[0].is_file()
    except (ValueError, IndexError, UserError):
        return False


def _with_recorded_config(words: Sequence[str], point: Outcome, path: Path) -> list[str]:
    """Returns a command whose base config is the recorded one, written as a config file.

    The base config of a record may have been moved or removed since.
    """
    values = {name: dict(section) for name, section in point.config.items()}
    path.write_text(_CONFIG_FILE.format(values=repr(values)), encoding="utf-8")
    found = list(words)
    found[found.index("--config") + 1] = str(path)
    return found


def verification(found: Verification) -> str:
    """Returns the comparison as lines of text."""
    lines = [f"{found.point.name}, recorded and again:"]
    for match in found.matches:
        mark = "" if match.matches else "  DIFFERS"
        if not match.is_judged:
            mark = "  (not judged)"
        numbers = f"{match.recorded:<22.9g} {match.again:<22.9g}"
        lines.append(f"step {match.step:<7} {match.metric:<14} {numbers}{mark}".rstrip())
    wrong = sum(not match.matches for match in found.matches)
    equal = sum(match.is_equal for match in found.matches)
    judged = sum(match.is_judged for match in found.matches)
    lines.append(
        f"{len(found.matches)} numbers: {equal} are equal in all recorded digits; of the {judged} "
        f"that are judged, {f'{wrong} differ' if wrong else 'all match'}, within {TOLERANCE:.1%} "
        f"up to step {EARLY_STEPS} and {LATER_TOLERANCE:.0%} after it"
    )
    if wrong == 0 and equal < len(found.matches):
        lines.append(
            "What is not equal was rounded otherwise: on another processor, in other versions, or "
            "on another number of cores (--cores)."
        )
    if found.knobs:
        lines.append(f"the config is no longer the recorded one: {'; '.join(found.knobs)}")
    return "\n".join(lines)
