"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpt2_jax.sweeps.folder import DIVERGED, FAILED
from gpt2_jax.sweeps.report import words
from gpt2_jax.sweeps.report.cautions import cautions
from gpt2_jax.sweeps.report.comparison import compare_arms
from gpt2_jax.sweeps.report.config_differences import arm_differences
from gpt2_jax.sweeps.report.outcomes import SweepOutcomes
from gpt2_jax.sweeps.report.question import question


def markdown(sweep: SweepOutcomes) -> str:
    """Returns the whole report."""
    parts = [f"# {title(sweep)}", summary(sweep)]
    for stage in sweep.stages:
        if len(sweep.stages) > 1:
            parts.append(f"## Stage {stage}")
        short = words.in_short(compare_arms(sweep, stage), sweep)
        parts.append("\n".join(f"- {sentence}" for sentence in short))
        parts += [verdict_table(sweep, stage), *_stage_parts(sweep, stage)]
    parts.append("\n".join(f"- {sentence}" for sentence in words.notes(sweep)))
    rows = [[name, value] for name, value in facts(sweep)]
    parts += ["## Setting", table(("what", "value"), rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


def title(sweep: SweepOutcomes) -> str:
    """Returns the heading of a report: the question, if the sweep file or a README has it."""
    asked = question(sweep.folder, sweep.sweep_file)
    return asked or f"Report of {sweep.sweep_file or sweep.folder.name}"


def summary(sweep: SweepOutcomes) -> str:
    """Returns the sentence below the heading."""
    compared = f"Baseline: {sweep.baseline}." if sweep.baseline else "No baseline was named."
    return f"Metric: {sweep.metric}. {compared} {words.total_text(sweep)}."


def verdict_table(sweep: SweepOutcomes, stage: str) -> str:
    """Returns the verdict table of a stage."""
    return table(*words.verdict_columns(compare_arms(sweep, stage), sweep))


def facts(sweep: SweepOutcomes) -> list[tuple[str, str]]:
    """Returns (what, value) of where the results come from."""
    found = [("sweep file", sweep.sweep_file), ("base config", sweep.base)]
    found += list(sweep.environment.items())
    if not sweep.environment:
        found.append(("commit and machine", "not recorded"))
    return [(name, value or words.NONE) for name, value in found]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of GitHub's Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def _stage_parts(sweep: SweepOutcomes, stage: str) -> list[str]:
    parts = []
    if sentences := cautions(sweep, stage, compare_arms(sweep, stage)):
        parts.append("\n".join(f"- **Caution.** {sentence}" for sentence in sentences))
    if ended := ended_early(sweep, stage):
        parts.append(table(("point", "state", "why"), ended))
    if knobs := arm_differences(sweep, stage):
        rows = [[arm, *(values[arm] for values in knobs.values())] for arm in sweep.arms(stage)]
        parts += ["What differs between the arms:", table(("arm", *knobs), rows)]
    listed = "\n".join(words.commands(sweep, stage))
    parts += ["The commands of the points:", f"```\n{listed}\n```"]
    return parts


def ended_early(sweep: SweepOutcomes, stage: str) -> list[list[str]]:
    """Returns [name, state, why] of the points that diverged or failed."""
    return [
        [point.name, point.state, point.message or words.NONE]
        for point in sweep.points
        if point.stage == stage and point.state in (DIVERGED, FAILED)
    ]
