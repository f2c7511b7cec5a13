"""Draws the results of a suite: bars against the ceiling, and lines of scaling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.benchmarks.summary import ceilings, floor_seconds, slope

# One color for each program in every plot; what is not listed takes the next of the others.
_COLORS = {
    "gpt2_jax": "#1b6ca8",
    "transformers": "#e08e0b",
    "torch eager": "#9aa0a6",
    "torch.compile": "#5f6368",
    "CTranslate2": "#2e8b57",
}
_OTHERS = ("#7fb3d5", "#b07aa1", "#bab0ac")
_BAR = 0.22  # inches


def draw(suite: str, content: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Draws what there is; returns {title: file name}, which is empty without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return {}
    matplotlib.use("Agg")
    drawn = {}
    if bars := _bars(content["cases"]):
        _draw_bars(bars, folder / f"{suite}.png")
        drawn["Fractions of the ceilings"] = f"{suite}.png"
    scaling = {name: case for name, case in content["cases"].items() if case["kind"] == "scaling"}
    if panels := _panels(scaling):
        _draw_scaling(panels, folder / f"{suite}_scaling.png")
        drawn["Scaling"] = f"{suite}_scaling.png"
    return drawn


def _bars(cases: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Returns (case, {subject: fraction of the ceiling}) of first parts, and of all of decoding."""
    rates = ceilings(cases)
    bars = []
    for name, case in cases.items():
        if case["kind"] in ("ceilings", "scaling"):
            continue
        parts = [*case["work"]]
        for part in parts if case["kind"] == "decode" else parts[:1]:
            floor = floor_seconds(case["work"][part], case["dtype"], rates)
            found = {
                subject: floor / values["summary"][part]["median"]
                for subject, values in case["subjects"].items()
                if part in values["summary"]
            }
            if floor and found:
                bars.append((f"{name}, {part}" if case["kind"] == "decode" else name, found))
    return bars


def _colors(names: list[str]) -> dict[str, str]:
    others = iter(_OTHERS * len(names))
    return {name: _COLORS.get(name) or next(others) for name in names}


def _draw_bars(bars: list[tuple[str, dict[str, float]]], path: Path) -> None:
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(subject for _, found in bars for subject in found))
    colors = _colors(names)
    rows = sum(len(found) + 1 for _, found in bars)
    figure, axes = plt.subplots(figsize=(8, 1.2 + _BAR * rows), layout="constrained")
    at, ticks, labelled = 0.0, [], set()
    for name, found in bars:
        ticks.append((at + (len(found) - 1) / 2, name))
        for subject, fraction in found.items():
            label = None if subject in labelled else subject
            labelled.add(subject)
            axes.barh(at, 100 * fraction, 0.9, color=colors[subject], label=label)
            place = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{100 * fraction:.0f}", (100 * fraction, at), **place, fontsize=7)
            at += 1
        at += 1
    axes.axvline(100, color="black", linewidth=1)
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks], fontsize=8)
    axes.set_ylim(at - 0.5, -1)
    most = max(fraction for _, found in bars for fraction in found.values())
    axes.set_xlim(0, 100 * max(1.08, most * 1.08))
    axes.set_xlabel("percent of the measured ceiling (longer is faster)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=min(len(names), 4), frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panels(cases: Mapping[str, Any]) -> list[tuple[str, dict[str, dict[str, float]]]]:
    """Returns (title, {subject: {size: number}}) of the plots that have lines."""
    panels = [(f"step, ms against {name.removeprefix('scaling_')}", _steps(case))
              for name, case in cases.items()]  # fmt: skip
    if "scaling_layers" in cases:
        panels.append(("compilation, s against layers", _compiled(cases["scaling_layers"])))
    return [(title, lines) for title, lines in panels if lines]


def _draw_scaling(panels: list[tuple[str, dict[str, dict[str, float]]]], path: Path) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    names = list(dict.fromkeys(subject for _, lines in panels for subject in lines))
    colors = _colors(names)
    figure, grid = plt.subplots(
        1, len(panels), figsize=(3.4 * len(panels), 3.4), layout="constrained", squeeze=False
    )
    for axes, (title, lines) in zip(grid[0], panels, strict=True):
        for subject, points in lines.items():
            exponent = slope(points)
            label = subject if exponent is None else f"{subject}: {exponent:.2f}"
            sizes = [float(size) for size in points]
            axes.plot(sizes, list(points.values()), "o-", color=colors[subject], label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        sizes = sorted({float(size) for points in lines.values() for size in points})
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
        axes.set_title(title, fontsize=9)
        axes.legend(frameon=False, fontsize=7, title="exponent", title_fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _steps(case: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name: {part: 1000 * value["median"] for part, value in subject["summary"].items()}
        for name, subject in case["subjects"].items()
        if subject["summary"]
    }


def _compiled(case: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found = {
        name: subject["facts"].get("compile_seconds_by_part")
        for name, subject in case["subjects"].items()
    }
    return {name: points for name, points in found.items() if points}
