"""What the charts of a report show: curves of the loss, by learning rate and by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt2_jax.sweeps.folder import DONE
from gpt2_jax.sweeps.report import words
from gpt2_jax.sweeps.report.by_position import position_bands
from gpt2_jax.sweeps.report.curves import Band, bands, numbers
from gpt2_jax.sweeps.report.outcomes import Outcome, SweepOutcomes
from gpt2_jax.sweeps.report.rates import learning_rates
from gpt2_jax.sweeps.report.svg import Axes
from gpt2_jax.sweeps.statistics.differences import mean

# The least validations of a run for curves of them; with fewer, the training loss is shown.
_ENOUGH_VALIDATIONS = 3
MOST_ARMS = 12
"""The most arms whose curves are drawn."""
_MOST_TICKS = 8  # along the axis of positions


@dataclass(frozen=True)
class Chart:
    """Describes a chart of curves.

    Attributes:
      name: of a file or an element of a page, different for every chart of a stage.
      caption: what it shows.
      bands: the curves.
      axes: of the chart.
      styles: the place of each curve among the colors, which arms keep in all charts.
    """

    name: str
    caption: str
    bands: Sequence[Band]
    axes: Axes
    styles: Sequence[int]


@dataclass(frozen=True)
class Section:
    """Describes charts that share a heading, an explanation and a legend.

    Attributes:
      heading: of the charts.
      text: how to read them.
      charts: one or more.
    """

    heading: str
    text: str
    charts: Sequence[Chart]

    @property
    def legend(self) -> list[tuple[int, str]]:
        """Returns (place among the colors, name) of all curves."""
        found = {
            style: band.name
            for chart in self.charts
            for style, band in zip(chart.styles, chart.bands, strict=True)
        }
        return sorted(found.items())


def sections(sweep: SweepOutcomes, stage: str) -> list[Section]:
    """Returns the charts of a stage; of a kind without any data there is no section.

    Curves of more than `MOST_ARMS` arms could not be told apart, and are left out.
    """
    arms = sweep.arms(stage)
    found = [_rates(sweep, stage)]
    if len(arms) <= MOST_ARMS:
        found += [_losses(sweep, arms), _positions(arms)]
    return [section for section in found if section is not None]


def _losses(sweep: SweepOutcomes, arms: Mapping[str, Sequence[Outcome]]) -> Section | None:
    done = [point for points in arms.values() for point in points if point.state == DONE]
    counts = [len(numbers(point, sweep.metric)[0]) for point in done]
    metric = sweep.metric if min(counts, default=0) >= _ENOUGH_VALIDATIONS else "loss"
    charts = []
    for by_seconds in (False, True):
        found = bands(arms, metric, by_seconds=by_seconds)
        if not found:
            continue
        label = "seconds of training" if by_seconds else "tokens"
        text = words.short_duration if by_seconds else words.count_text
        name = "time" if by_seconds else "tokens"
        axes = Axes(label, metric, text)
        charts.append(Chart(name, f"{metric} by {label}", found, axes, _styles(arms, found)))
    if not charts:
        return None
    what = "training loss" if metric == "loss" else f"{metric} of the validations"
    text = (
        f"Mean {what} over the seeds, with pointwise 95 % bands from Student's t distribution. The "
        "steep start may be cut off. Bands of two arms may overlap although their paired "
        "difference is clear: the table decides. Seconds leave out validations and saves."
    )
    return Section("Loss curves", text, charts)


def _rates(sweep: SweepOutcomes, stage: str) -> Section | None:
    found = []
    for label, rates in learning_rates(sweep).get(stage, {}).items():
        known = {rate: values for rate, values in rates.items() if values and rate > 0}
        if not known:
            continue
        tests = [mean(np.array(values)) for values in known.values()]
        low, high = (np.array(each) for each in zip(*(t.interval() for t in tests), strict=True))
        center = np.array([float(test.estimate) for test in tests])
        count = min(len(values) for values in known.values())
        found.append(Band(label, np.array([*known]), center, low, high, count))
    if not found:
        return None
    axes = Axes("learning rate", sweep.metric, lambda rate: f"{rate:.3g}", True, True)
    caption = f"{sweep.metric} at the last step by learning rate"
    text = (
        "Each point is the mean of the runs with this learning rate. An arm whose best rate is the "
        "first or the last of its grid may not be tuned."
    )
    chart = Chart("rate", caption, found, axes, range(len(found)))
    return Section("Learning rates", text, [chart])


def _positions(arms: Mapping[str, Sequence[Outcome]]) -> Section | None:
    found = position_bands(arms)
    if not found:
        return None
    ticks = [2.0**power for power in range(int(np.log2(max(band.x[-1] for band in found))) + 1)]
    label = "position in the context"
    every = -(-len(ticks) // _MOST_TICKS)
    axes = Axes(label, "eval/loss", words.count_text, True, True, tuple(ticks[::every]))
    text = (
        "Mean loss of the tokens at each position of the context in the last validation, averaged "
        "over bins of positions, with 95 % intervals over the seeds. Later tokens have more "
        "context: a curve that stops falling, or rises, says that an arm cannot use it."
    )
    longest = max(len(p.loss_by_position) for points in arms.values() for p in points)
    lengths = [_context(point) for points in arms.values() for point in points]
    trained = {length for length in lengths if length is not None and length != longest}
    if trained:
        text += f" The models were trained on {' or '.join(map(str, sorted(trained)))} positions."
    chart = Chart("position", f"eval/loss by {label}", found, axes, _styles(arms, found))
    return Section("Loss by position", text, [chart])


def _context(point: Outcome) -> int | None:
    length = point.config.get("model", {}).get("context_length")
    return length if isinstance(length, int) else None


def _styles(arms: Mapping[str, Sequence[Outcome]], found: Sequence[Band]) -> list[int]:
    order = list(arms)
    return [order.index(band.name) for band in found]
