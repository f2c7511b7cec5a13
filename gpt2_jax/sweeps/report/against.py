"""A run beside a reference: is it on track?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.sweeps.folder import read_object
from gpt2_jax.sweeps.report import words
from gpt2_jax.sweeps.report.curves import metric_curve
from gpt2_jax.sweeps.report.markdown import table
from gpt2_jax.sweeps.report.outcomes import read_lines
from gpt2_jax.sweeps.report.references import Reference, run_setting
from gpt2_jax.sweeps.statistics.differences import Array
from gpt2_jax.sweeps.statistics.verdict import time_to_loss

METRIC = "eval/loss"
TOLERANCE = 0.02
"""Nats per token by which a run may differ and be on track, whatever the slope of the reference.

Runs that differ only in the seed differ by 0.002 at this size (the standard deviation of 124M
models that modded-nanogpt gives), other validation batches and another interpolation by more.
"""
SHARE = 0.1
"""The share of the tokens that a run on track may be behind: early, curves depend on the warmup."""
_ROWS = 12  # of the printed table

ON_TRACK, AHEAD, BEHIND, UNKNOWN = "on track", "ahead", "behind", "unknown"


@dataclass(frozen=True)
class Standing:
    """Describes a run beside a reference.

    Attributes:
      tokens: of the run's validations.
      losses: of the run there.
      expected: losses of the reference at the same tokens, not a number outside of its points.
      kind: `on track`, `ahead`, `behind` or `unknown`, at the last validation that can be compared.
      verdict: a sentence that says so with its numbers.
      warnings: sentences on what differs between the settings.
    """

    tokens: Array
    losses: Array
    expected: Array
    kind: str
    verdict: str
    warnings: Sequence[str]


def compare(run: Path, reference: Reference) -> Standing:
    """Returns how a run stands beside a reference.

    Raises:
      UserError: if the folder is not that of a run, or it has no validation yet.
    """
    if not (run / "metrics.jsonl").exists():
        raise UserError(f"{run} is not the folder of a run, because it has no metrics.jsonl")
    tokens, losses = metric_curve(read_lines(run / "metrics.jsonl"), METRIC)
    if not len(tokens):
        raise UserError(f"{run} has no {METRIC} yet: wait for its first validation (eval.every)")
    config = read_object(run / "config.json") if (run / "config.json").exists() else {}
    warnings, comparable = _differences(config, reference)
    expected = interpolated(reference, tokens)
    kind, verdict = _verdict(tokens, losses, expected, reference)
    if not comparable:
        kind = UNKNOWN
        verdict = (
            f"Not comparable: the tokens of the run are not those of {reference.name}, and losses "
            "per token of different tokenizers have different meanings."
        )
    return Standing(tokens, losses, expected, kind, verdict, warnings)


def interpolated(reference: Reference, tokens_S: Array) -> Array:
    """Returns the reference's losses, straight lines over the logarithm of the tokens.

    Not a number before its first point and after its last.
    """
    return np.interp(
        np.log(np.maximum(tokens_S, 1.0)),
        np.log(reference.tokens),
        reference.losses,
        left=np.nan,
        right=np.nan,
    )


def _verdict(
    tokens: Array, losses: Array, expected: Array, reference: Reference
) -> tuple[str, str]:
    known = np.flatnonzero(~np.isnan(expected))
    first, last = reference.tokens[0], reference.tokens[-1]
    if not len(known):
        place = f"begins at {words.count_text(first)} tokens"
        if tokens[0] > last:
            place = f"ends at {words.count_text(last)} tokens, with a loss of "
            place += f"{reference.losses[-1]:.3f}"
        at = f"{words.count_text(tokens[-1])} tokens with {METRIC} {losses[-1]:.3f}"
        return UNKNOWN, f"No verdict: the run is at {at}, and {reference.name} {place}."
    at = int(known[-1])
    difference = float(losses[at] - expected[at])
    allowed = max(TOLERANCE, _worth(reference, float(tokens[at])))
    kind = ON_TRACK
    if abs(difference) > allowed:
        kind = BEHIND if difference > 0 else AHEAD
    side = "above" if difference > 0 else "below"
    sentence = (
        f"{kind.capitalize()}: at {words.count_text(tokens[at])} tokens {METRIC} is "
        f"{losses[at]:.4f}, {abs(difference):.4f} {side} the {expected[at]:.4f} of "
        f"{reference.name}; up to {allowed:.3f} count as on track there"
    )
    same = _tokens_at(reference, float(losses[at]))
    if kind != ON_TRACK and same is not None:
        sentence += f". {reference.name} had this loss at {words.count_text(same)} tokens"
    return kind, f"{sentence}."


def _worth(reference: Reference, tokens: float) -> float:
    """Returns by how much the reference's loss falls over `SHARE` of the tokens."""
    low, high = reference.tokens[0], reference.tokens[-1]
    around = np.clip(np.array([tokens * (1 - SHARE), tokens]), low, high)
    if around[0] == around[1]:  # at the first point: from there on
        around = np.clip(np.array([tokens, tokens / (1 - SHARE)]), low, high)
    before, after = interpolated(reference, around)
    return max(0.0, float(before - after))


def _tokens_at(reference: Reference, loss: float) -> float | None:
    """Returns the tokens at which the reference first had a loss, None if it never had."""
    # Between its points the reference is a straight line over the logarithm of the tokens.
    log_tokens, is_reached = time_to_loss(np.log(reference.tokens), reference.losses, loss)
    return math.exp(log_tokens) if is_reached and loss < reference.losses[0] else None


def _differences(config: Mapping[str, Any], reference: Reference) -> tuple[list[str], bool]:
    """Returns warnings, and whether losses can be compared at all."""
    if not config:
        return ["The run has no config.json: nothing is known about its setting."], True
    own, warnings, comparable = run_setting(config), [], True
    for knob, value in reference.setting.items():
        if knob not in own or own[knob] == value:
            continue
        warnings.append(f"{knob} is {own[knob]}, and {value} in {reference.name}.")
        comparable = comparable and knob != "data.tokenizer"
    data = config.get("data", {})
    paths = str([data.get("path"), data.get("mixture")]).lower() if isinstance(data, dict) else ""
    if reference.dataset and reference.dataset.lower() not in paths:
        warnings.append(
            f"{reference.name} was trained and validated on {reference.dataset}, which the run's "
            "data.path does not name: losses on different texts cannot be compared."
        )
    return warnings, comparable


def as_text(standing: Standing, reference: Reference) -> str:
    """Returns the comparison as Markdown."""
    parts = [standing.verdict, *(f"- **Caution.** {each}" for each in standing.warnings)]
    parts = [
        "\n".join(parts),
        table(("tokens", "run", reference.name, "difference"), table_rows(standing)),
    ]
    about = [f"{reference.name}: {reference.title}.", reference.notes, *reference.sources]
    return "\n\n".join([*parts, "\n".join(filter(None, about))])


def table_rows(standing: Standing) -> list[list[str]]:
    """Returns [tokens, loss of the run, loss of the reference, difference], some of them."""
    rows = []
    for at in _places(len(standing.tokens)):
        loss, expected = standing.losses[at], standing.expected[at]
        row = [words.count_text(standing.tokens[at]), words.fixed(loss, 4)]
        rows.append([*row, words.fixed(expected, 4), words.fixed(loss - expected, 4, sign=True)])
    return rows


def as_json(standing: Standing, reference: Reference) -> dict[str, Any]:
    """Returns the comparison as a JSON object; numbers that are not finite are null."""
    expected = [None if np.isnan(loss) else loss for loss in standing.expected.tolist()]
    return {
        "kind": standing.kind,
        "verdict": standing.verdict,
        "warnings": list(standing.warnings),
        "reference": {"name": reference.name, "title": reference.title},
        "sources": list(reference.sources),
        "tokens": standing.tokens.tolist(),
        METRIC: standing.losses.tolist(),
        "reference_loss": expected,
    }


def _places(count: int) -> list[int]:
    """Returns the places of about evenly spaced rows, the last one included."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, _ROWS))})
