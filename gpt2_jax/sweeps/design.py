"""What a sweep will be able to show: the smallest differences that its seeds can find."""

from __future__ import annotations

import dataclasses
import math

from gpt2_jax.sweeps.stages import Stages
from gpt2_jax.sweeps.statistics.power import MOST_SEEDS, seeds_needed, smallest_detectable_effect


@dataclasses.dataclass(frozen=True)
class Design:
    """Says what the last stage of a sweep compares, and what that can show.

    Attributes:
      stage: its name.
      metric: what is compared.
      baseline: the arm that the others are compared with; None if nothing is compared.
      arms: how many others there are.
      seeds: how many seeds each of them has in common with the baseline, at least.
      effect: the smallest difference that is found 80 % of the time, in standard deviations of a
        paired difference; infinite with fewer than two seeds.
      alone: likewise, if only one arm were compared.
      deviation: that standard deviation in units of the metric, or None if it is not known.
      deviation_is: where it is from.
      delta: the difference that does not matter, or None.
      seeds_for_delta: how many seeds tell such a difference from none; None if that is not known.
    """

    stage: str
    metric: str
    baseline: str | None
    arms: int
    seeds: int
    effect: float
    alone: float
    deviation: float | None
    deviation_is: str
    delta: float | None
    seeds_for_delta: int | None


def design_of(stages: Stages, deviation: float | None = None, deviation_is: str = "") -> Design:
    """Returns what the last stage can show.

    Args:
      stages: the checked sweep.
      deviation: the standard deviation of a paired difference of the metric, if it is known.
      deviation_is: where it is from.
    """
    sweep, stage = stages.sweep, list(stages.sweep.stages)[-1]
    seeds = stages.seeds_of_arms(stage)
    baseline = seeds.pop(stages.baseline or "", set())
    arms = len(seeds) if stages.baseline is not None else 0
    common = min((len(own & baseline) for own in seeds.values()), default=0) if arms else 0
    needed = None
    if deviation is not None and sweep.delta is not None and arms:
        needed = seeds_needed(deviation, sweep.delta, arms=arms, equivalence=True)
    return Design(
        stage=stage,
        metric=sweep.metric,
        baseline=stages.baseline,
        arms=arms,
        seeds=common,
        effect=smallest_detectable_effect(common, arms=max(arms, 1)),
        alone=smallest_detectable_effect(common),
        deviation=deviation,
        deviation_is=deviation_is,
        delta=sweep.delta,
        seeds_for_delta=needed,
    )


def design_text(design: Design) -> str:
    """Returns what a design can show, in sentences."""
    if design.baseline is None:
        return "differences: none, because the sweep names no baseline"
    if not design.arms:
        return f"differences: none, because {design.baseline!r} is the only arm"
    several = design.arms > 1
    who = f"each of {design.arms} arms" if several else "one arm"
    compared = f"differences: stage {design.stage} compares {who} with {design.baseline!r}"
    if not math.isfinite(design.effect):
        return (
            f"{compared} on {design.seeds} seed(s), which tell no difference from noise: use more"
        )
    lines = [
        f"{compared} on {design.seeds} seeds, and finds differences of {design.effect:.2f} "
        "standard deviations of a paired difference (80 % power, 5 % false alarms"
        + (f" among all arms; one arm alone: {design.alone:.2f})" if several else ")")
    ]
    if design.deviation is None:
        lines.append(
            f"in units of {design.metric}: unknown; give --noise, that standard deviation or a "
            "finished sweep that has it"
        )
        return "\n".join(lines)
    lines.append(
        f"in units of {design.metric}: {design.effect * design.deviation:.3g}, with a standard "
        f"deviation of {design.deviation:.3g} ({design.deviation_is})"
    )
    if design.seeds_for_delta is not None:
        many = design.seeds_for_delta > MOST_SEEDS
        count = f"more than {MOST_SEEDS}" if many else f"{design.seeds_for_delta}"
        lines.append(f"to tell a difference of delta={design.delta:g} from none: {count} seeds")
    return "\n".join(lines)


def design_json(design: Design) -> dict[str, object]:
    """Returns a design as plain values; an infinite effect is None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in dataclasses.asdict(design).items()
    }
