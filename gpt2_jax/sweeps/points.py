"""Points: every run of a sweep, with its resolved config and a name that only it has."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config
from gpt2_jax.config.hints import unknown_key
from gpt2_jax.config.knob import parse
from gpt2_jax.data.folders import require_folder
from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import is_remote
from gpt2_jax.sweeps.axes import Setting, Value, value_text

# Sections that change what is recorded, saved or shared between devices, but not what is learned.
NOT_LEARNED = ("log", "checkpoint", "mesh")
_LONGEST_ARM = 60  # characters of an arm in a name, which is the name of a folder


@dataclasses.dataclass(frozen=True)
class Point:
    """Describes one run of a sweep.

    Attributes:
      name: readable, and different for every config.
      stage: the name of its stage.
      setting: its place in the stage.
      overrides: {knob: value}, all that differs from the base.
      config: its resolved config.
      config_hash: SHA-256 of the config without log, checkpoint and mesh, as hexadecimal digits.
    """

    name: str
    stage: str
    setting: Setting
    overrides: Mapping[str, Value]
    config: Config
    config_hash: str

    @property
    def arm(self) -> str:
        """Returns the name of its arm, which the points that differ only in the seed share."""
        return self.setting.arm

    @property
    def seed(self) -> int:
        """Returns `train.seed`."""
        return self.config.train.seed

    @property
    def tokens(self) -> int:
        """Returns the tokens of the whole run."""
        return self.config.train.total_steps * self.config.tokens_per_step

    def flags(self, base: str, workdir: str | os.PathLike[str]) -> list[str]:
        """Returns the words after `gpt2-jax train`."""
        overrides = [f"--config.{key}={value_text(v)}" for key, v in self.overrides.items()]
        return ["--config", base, "--workdir", os.fspath(workdir), *overrides]


class Resolver:
    """Resolves settings through one base config."""

    def __init__(self, base: str) -> None:
        """Loads the base config.

        Raises:
          UserError: if it cannot be loaded.
        """
        self.base = base
        self._values = config_lib.to_dict(config_lib.load_config(base))
        self._knobs = {knob.key: knob for knob in config_lib.knobs()}

    def resolve(
        self, stage: str, settings: Iterable[Setting], overrides: Mapping[str, Value]
    ) -> list[Point]:
        """Returns the points of a stage.

        Args:
          stage: the stage's name.
          settings: of its points.
          overrides: what all of them share, and no setting may set too.

        Raises:
          UserError: with the errors of all points.
        """
        points: list[Point] = []
        problems: dict[str, list[str]] = {}
        for setting in settings:
            try:
                points.append(self._point(stage, setting, overrides))
            except UserError as error:
                problems.setdefault(str(error), []).append(setting.arm)
        if problems:
            raise UserError("; ".join(_problem(*each) for each in problems.items()))
        _check_arms(stage, points)
        return points

    def _point(self, stage: str, setting: Setting, shared: Mapping[str, Value]) -> Point:
        if twice := sorted({*shared} & {*setting.overrides}):
            raise UserError(f"{twice[0]} is set by a point and by overrides=: one would be lost")
        overrides = {**shared, **setting.overrides}
        values: dict[str, dict[str, Any]] = {name: dict(v) for name, v in self._values.items()}
        for key, value in overrides.items():
            if key not in self._knobs:
                raise unknown_key(key, self._knobs)
            section, name = key.split(".")
            # As the command of the point will parse it.
            values[section][name] = parse(self._knobs[key], value_text(value))
        config = config_lib.from_dict(values)
        digest = config_hash(config)
        name = f"{_slug(setting.arm)}-s{config.train.seed}-{digest[:8]}"
        return Point(name, stage, setting, overrides, config, digest)


def config_hash(config: Config) -> str:
    """Returns the SHA-256 of a config without log, checkpoint and mesh, as hexadecimal digits."""
    values = config_lib.to_dict(config)
    hashed = {name: section for name, section in values.items() if name not in NOT_LEARNED}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def check_different(points: Sequence[Point]) -> None:
    """Refuses points that would compute the same.

    Raises:
      UserError: naming all of them.
    """
    first: dict[str, Point] = {}
    problems = []
    for point in points:
        other = first.setdefault(point.config_hash, point)
        if other is not point:
            described = f"{point.arm!r} with train.seed={point.seed}"
            where = "" if other.stage == point.stage else f" of stage {other.stage!r}"
            same = f"{other.arm!r} with train.seed={other.seed}{where}"
            problems.append(f"{described} has the same config as {same}")
    if problems:
        raise UserError(f"duplicate points: {'; '.join(problems)}: remove or change one of each")


def check_data(points: Iterable[Point]) -> None:
    """Refuses points whose data is missing, which would all fail one after the other.

    Raises:
      UserError: naming the folder, and how it is made.
    """
    for path in dict.fromkeys(path for point in points for path in point.config.data.weights):
        if not is_remote(path):
            require_folder(path)


def _check_arms(stage: str, points: Iterable[Point]) -> None:
    """Refuses an arm that means two things, because its points would be averaged."""
    meanings: dict[str, dict[str, Value]] = {}
    for point in points:
        if meanings.setdefault(point.arm, point.setting.without_seed) != point.setting.without_seed:
            raise UserError(f"stage {stage!r}: two different arms are called {point.arm!r}")


def _problem(message: str, where: Sequence[str]) -> str:
    places = list(dict.fromkeys(where))
    others = len(places) - 1
    more = f" and {others} more arm{'s' if others > 1 else ''}" if others else ""
    return f"{message} (in {places[0]!r}{more})"


def _slug(arm: str) -> str:
    """Returns an arm for the name of a folder: without sections, spaces and special characters."""
    words = [re.sub(r"^\w+\.(?=\w+=)", "", word) for word in arm.split(" ")]
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", " ".join(words))[:_LONGEST_ARM].strip("-.") or "arm"
