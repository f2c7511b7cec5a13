"""What a sweep file describes: a base config, the points or stages, and what is compared."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.config.arguments import number, text
from gpt2_jax.errors import UserError, short_repr
from gpt2_jax.sweeps.axes import SEED, Points, Value, checked_overrides

ONLY_STAGE = "main"
"""The stage of a sweep that has only points."""
_TWO_STAGES = ("tune", "confirm")


@dataclasses.dataclass(frozen=True)
class BestOf:
    """Describes a stage whose points are known once an earlier stage has finished; see `best_of`.

    Attributes:
      stage: the name of the earlier stage.
      per: the arms, of each of which the best setting is taken.
      then: what the best settings are combined with.
      overrides: further overrides of this stage's points.
    """

    stage: str
    per: Points
    then: Points
    overrides: Mapping[str, Value]


def best_of(
    stage: str,
    *,
    per: Points,
    then: Points,
    overrides: Mapping[str, Value] | None = None,
) -> BestOf:
    """Returns a stage that runs the best setting of each arm again, as on fresh seeds.

    The best setting has the best mean of the sweep's metric over its seeds in the earlier stage;
    settings with a point that diverged or failed are left out. Of equally good ones the first wins.

    Args:
      stage: the name of the earlier stage.
      per: the arms: the part of the earlier stage's product whose best settings are wanted.
      then: what they are combined with, usually `seeds(...)` that the earlier stage did not use.
      overrides: {knob: value} for this stage alone, such as a longer run; they replace those of the
        earlier stage and of the sweep.

    Raises:
      UserError: if an argument has a wrong type, or `per` has seeds.
    """
    for name, part in (("per", per), ("then", then)):
        if not isinstance(part, Points):
            kinds = "axis(...), arms(...) or a combination of them"
            raise UserError(f"best_of: {name} must be {kinds}, not {short_repr(part)}")
    if any(SEED in setting.overrides for setting in per):
        raise UserError("best_of: per must not have seeds, because the mean over them is compared")
    checked = checked_overrides("best_of: overrides", overrides or {})
    return BestOf(text("best_of: stage", stage), per, then, checked)


Stage = Points | BestOf


class Sweep:
    """Describes a sweep, as `get_sweep()` of a sweep file returns it.

    Attributes:
      base: the config file, with its argument if it has one; empty for the sweep file itself.
      stages: {name: its points, or what they are taken from}, in the order in which they run.
      baseline: the arm that the others are compared with: its name, or some of its overrides that
        no other arm has; None if nothing is compared.
      metric: the number that is compared, such as `eval/loss`.
      delta: the difference of the metric that does not matter; None if that was not decided.
      overrides: {knob: value} for every point.
    """

    def __init__(
        self,
        base: str | os.PathLike[str] = "",
        points: Points | None = None,
        *,
        stages: Sequence[Stage] | Mapping[str, Stage] | None = None,
        baseline: str | Mapping[str, Value] | None = None,
        metric: str = "eval/loss",
        delta: float | None = None,
        overrides: Mapping[str, Value] | None = None,
    ) -> None:
        """Checks the types of the arguments, which the attributes describe.

        Args:
          base: a path from the current folder, as for `--config`, or the name of a config that
            comes with the package.
          points: what runs; or instead
          stages: two stages, called `tune` and `confirm`; or {name: stage}.
          baseline: see above.
          metric: see above.
          delta: see above.
          overrides: see above.

        Raises:
          UserError: if an argument has a wrong type, or a stage names none that is before it.
        """
        if not isinstance(base, (str, Path)):
            raise UserError(f"Sweep: base must be the path of a config, not {short_repr(base)}")
        self.base = os.fspath(base)
        self.stages = _stages(points, stages)
        self.baseline: str | dict[str, Value] | None = None
        if isinstance(baseline, str):
            self.baseline = baseline
        elif baseline is not None:
            self.baseline = checked_overrides("Sweep: baseline", baseline)
        self.metric = text("Sweep: metric", metric)
        self.delta = None if delta is None else number("Sweep: delta", delta)
        if self.delta is not None and self.delta <= 0:
            raise UserError(f"Sweep: delta must be greater than 0, not {self.delta:g}")
        self.overrides = checked_overrides("Sweep: overrides", overrides or {})

    def overrides_of(self, stage: str) -> dict[str, Value]:
        """Returns the overrides that all points of a stage share."""
        described = self.stages[stage]
        own = described.overrides if isinstance(described, BestOf) else {}
        return self.overrides | dict(own)


def _stages(points: Any, stages: Any) -> dict[str, Stage]:
    if (points is None) == (stages is None):
        raise UserError("Sweep: give it either points=, or stages=")
    if points is not None:
        named: dict[str, Any] = {ONLY_STAGE: points}
    elif isinstance(stages, Mapping):
        named = dict(stages)
    elif isinstance(stages, (list, tuple)) and len(stages) == len(_TWO_STAGES):
        named = dict(zip(_TWO_STAGES, stages, strict=True))
    else:
        raise UserError(
            "Sweep: stages must be a list of two, which are called tune and confirm, or "
            f"{{name: stage}}, not {short_repr(stages)}"
        )
    earlier: list[str] = []
    for name, stage in named.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise UserError(f"Sweep: a stage's name must be a word, not {short_repr(name)}")
        if not isinstance(stage, (Points, BestOf)):
            raise UserError(
                f"Sweep: {'points' if stages is None else f'stage {name!r}'} must be axis(...), "
                f"product(...) or the like, not {short_repr(stage)}"
            )
        if isinstance(stage, BestOf) and stage.stage not in earlier:
            known = f"the stages before it are {', '.join(earlier)}" if earlier else "it is first"
            raise UserError(f"Sweep: stage {name!r} is best_of({stage.stage!r}), but {known}")
        earlier.append(name)
    if not earlier:
        raise UserError("Sweep: stages is empty")
    return named
