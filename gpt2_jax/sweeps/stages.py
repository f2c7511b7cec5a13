"""The stages of a sweep: checking all of them first, and choosing the best of one for the next."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from gpt2_jax.errors import UserError, did_you_mean, short_repr, warn
from gpt2_jax.evals import sources
from gpt2_jax.sweeps.axes import SEED, Points, Setting, Value, joined
from gpt2_jax.sweeps.points import Point, Resolver, check_different
from gpt2_jax.sweeps.sweep import BestOf, Sweep

_METRICS = ("eval/loss", "eval/perplexity", "eval/bits_per_byte")
# What begins the metrics of the average of the parameters, which validation alone measures.
_OF_AVERAGE = "eval/ema_"
# Of the metrics of tasks, these begin the names of those of which more is better.
_HIGHER_IS_BETTER = "acc"


class Stages:
    """Holds a checked sweep, and the points of each stage as they become known.

    Attributes:
      sweep: what the sweep file describes.
      baseline: the arm that the others are compared with, or None.
      known: {stage: its points} of the stages that depend on no other, in order.
    """

    def __init__(self, sweep: Sweep) -> None:
        """Resolves every point through the config.

        Of a stage that depends on another, every point that it may have is resolved.

        Raises:
          UserError: with all errors of all points.
        """
        self.sweep = sweep
        self._resolver = Resolver(sweep.base)
        self.known: dict[str, list[Point]] = {}
        self._candidates: dict[str, list[Point]] = {}
        problems = []
        for name, stage in sweep.stages.items():
            try:
                settings = stage if isinstance(stage, Points) else self._may_have(name, stage)
                self._candidates[name] = self._resolve(name, settings)
            except UserError as error:
                problems.append(str(error))
                self._candidates[name] = []
            if isinstance(stage, Points):
                self.known[name] = self._candidates[name]
        if problems:
            raise UserError("; ".join(dict.fromkeys(problems)))
        check_different([point for points in self.known.values() for point in points])
        self.baseline = self._find_baseline()
        _check_metric(sweep.metric, [p for points in self._candidates.values() for p in points])

    def count(self, stage: str) -> int:
        """Returns the number of points that a stage will have if no arm is lost before it."""
        described = self.sweep.stages[stage]
        if isinstance(described, BestOf):
            return len(described.per) * len(described.then)
        return len(self.known[stage])

    def may_have(self, stage: str) -> Sequence[Point]:
        """Returns the points of a stage or, if it depends on another, those that it may have."""
        return self._candidates[stage]

    def seeds_of_arms(self, stage: str) -> dict[str, set[Value]]:
        """Returns {arm: its seeds} of a stage that loses no arm; None is the base config's seed."""
        seeds: dict[str, set[Value]] = {}
        for setting in self._settings(stage):
            seeds.setdefault(setting.arm, set()).add(setting.overrides.get(SEED))
        return seeds

    def _settings(self, stage: str) -> list[Setting]:
        """Returns the settings of a stage; what an earlier one chooses is not part of them."""
        described = self.sweep.stages[stage]
        if isinstance(described, BestOf):
            pairs = itertools.product(described.per, described.then)
            return [joined("best_of", pair) for pair in pairs]
        return [point.setting for point in self.known[stage]]

    def choose(
        self, stage: str, finished: Mapping[str, Sequence[tuple[Point, float | None]]]
    ) -> list[Point]:
        """Returns the points of a stage that depends on another.

        An arm of which no setting has finished gets a warning and no points.

        Args:
          stage: the stage's name.
          finished: {earlier stage: its points, each with its metric, None if it diverged or
            failed}.
        """
        described = self.sweep.stages[stage]
        assert isinstance(described, BestOf)
        settings: list[Setting] = []
        for group in described.per:
            scores: dict[str, list[float | None]] = {}
            first: dict[str, Point] = {}
            for point, value in finished.get(described.stage, ()):
                if point.setting.includes(group):
                    scores.setdefault(point.arm, []).append(value)
                    first.setdefault(point.arm, point)
            complete = {
                arm: math.fsum(v for v in values if v is not None) / len(values)
                for arm, values in scores.items()
                if None not in values
            }
            if not complete:
                warn(
                    f"stage {stage!r} has no points of {group.arm!r}, because in stage "
                    f"{described.stage!r} each of its settings has a point that diverged or failed"
                )
                continue
            best = max if higher_is_better(self.sweep.metric) else min
            arm = best(complete, key=lambda arm: complete[arm])
            chosen = Setting(first[arm].setting.without_seed, group.labels)
            settings += [joined("best_of", (chosen, each)) for each in described.then]
        points = self._resolve(stage, settings)
        earlier = [p for name in finished for p, _ in finished[name]]
        check_different([*earlier, *points])
        return points

    def _resolve(self, stage: str, settings: Sequence[Setting]) -> list[Point]:
        """Returns the points; what this stage alone overrides replaces what was tuned."""
        described = self.sweep.stages[stage]
        own = described.overrides if isinstance(described, BestOf) else {}
        settings = [
            Setting({k: v for k, v in each.overrides.items() if k not in own}, each.labels)
            for each in settings
        ]
        return self._resolver.resolve(stage, settings, self.sweep.overrides_of(stage))

    def _may_have(self, name: str, stage: BestOf) -> list[Setting]:
        """Returns the settings of which the stage will have some: each arm's with any rate, say."""
        before = [point.setting for point in self._candidates[stage.stage]]
        used = {each.overrides[SEED] for each in before if SEED in each.overrides}
        seeds = [each.overrides[SEED] for each in stage.then if SEED in each.overrides]
        if again := [seed for seed in seeds if seed in used]:
            raise UserError(
                f"stage {name!r} repeats {SEED}={again[0]} of stage {stage.stage!r}, whose noise "
                "has chosen the settings: give it fresh seeds, as with seeds(5, first=1000)"
            )
        settings = []
        for group in stage.per:
            tuned = {each.arm: each for each in before if each.includes(group)}
            if before and not tuned:
                raise UserError(
                    f"stage {name!r}: stage {stage.stage!r} has no points of {group.arm!r}, which "
                    "best_of is to take the best of: give per= a part of that stage"
                )
            settings += [
                joined("best_of", (Setting(each.without_seed, each.labels), then))
                for each in tuned.values()
                for then in stage.then
            ]
        return settings

    def _find_baseline(self) -> str | None:
        wanted = self.sweep.baseline
        arms = {each.arm: each for each in self._settings(list(self.sweep.stages)[-1])}
        if wanted is None:
            return None
        if isinstance(wanted, str):
            if wanted not in arms:
                raise UserError(_no_arm(wanted, wanted, list(arms)))
            return wanted
        subset = Setting(wanted, ())
        found = [arm for arm, setting in arms.items() if setting.includes(subset)]
        text = ", ".join(f"{key}={value!r}" for key, value in wanted.items())
        if not found:
            raise UserError(_no_arm(text, "", list(arms)))
        if len(found) > 1:
            raise UserError(
                f"Sweep: baseline {text} is true of {len(found)} arms, such as {found[0]!r} and "
                f"{found[1]!r}: add the knobs that distinguish them"
            )
        return found[0]


def higher_is_better(metric: str) -> bool:
    """Returns whether more of a metric is better, as of an accuracy, instead of less."""
    return metric.rpartition("/")[2].startswith(_HIGHER_IS_BETTER)


def _no_arm(described: str, name: str, arms: list[str]) -> str:
    hint = did_you_mean(name, arms) if name else ""
    shown = ", ".join(map(repr, dict.fromkeys(arms[:5]))) + (", ..." if len(arms) > 5 else "")
    return f"Sweep: baseline {described} is no arm{hint or f'; the arms are {shown}'}"


def _check_metric(metric: str, points: Sequence[Point]) -> None:
    """Refuses a metric that the validations of some points will not report.

    Raises:
      UserError: naming the metrics that they report.
    """
    for point in points:
        tasks = sources.select_of_config(point.config)
        known, hint = list(_METRICS), ""
        if point.config.optimizer.ema_decay:
            known += [f"{_OF_AVERAGE}{name.removeprefix('eval/')}" for name in _METRICS]
        elif metric.startswith(_OF_AVERAGE):
            hint = "; for an average of the parameters set optimizer.ema_decay, which is 0"
        mixture = point.config.data.mixture is not None
        is_set = mixture and metric.startswith("eval/") and metric.endswith("/loss")
        is_task = any(metric.startswith(f"eval/{task}/") for task in tasks)
        if metric not in known and not is_set and not is_task:
            listed = ", ".join([*known, *(f"eval/{task}/..." for task in tasks)])
            raise UserError(
                f"Sweep: metric {short_repr(metric)} is not reported by {point.arm!r}: it must be "
                f"one of {listed}{hint or did_you_mean(metric, known)}"
            )
