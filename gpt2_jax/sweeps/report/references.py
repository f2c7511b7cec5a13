"""Published curves of validation losses that a run is compared with, and curves of one's own.

Those that come with the package are the JSON files in references/: each has its sources, its
setting as far as these state it, and points [tokens, loss].
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError, did_you_mean, short_repr
from gpt2_jax.files.paths import local_path
from gpt2_jax.sweeps.folder import read_object
from gpt2_jax.sweeps.report.curves import metric_curve
from gpt2_jax.sweeps.report.outcomes import read_lines
from gpt2_jax.sweeps.statistics.differences import Array

_FOLDER = Path(__file__).parent / "references"
_LOSSES = ("loss", "eval/loss", "val_loss")  # names of the column of a CSV file
_SECTIONS = ("model", "optimizer", "schedule")  # all of whose knobs make losses differ
_OTHERS = ("data.tokenizer", "train.total_steps")


@dataclass(frozen=True)
class Reference:
    """Describes a curve to compare with.

    Attributes:
      name: by which it was asked for.
      title: what was trained, and on what.
      tokens: of each point, increasing.
      losses: the validation losses there, in nats per token.
      sources: addresses.
      notes: what a reader must know about the points.
      dataset: a name that the folder of the same data would have in its path; empty if unknown.
      setting: {knob: value}, as far as known; `tokens_per_step` is one of them.
    """

    name: str
    title: str
    tokens: Array
    losses: Array
    sources: Sequence[str] = ()
    notes: str = ""
    dataset: str = ""
    setting: Mapping[str, Any] = field(default_factory=dict)


def shipped() -> list[str]:
    """Returns the names of the references that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_reference(name: str) -> Reference:
    """Returns a reference by its name, or one read from a file or from the folder of a run.

    Args:
      name: one of `shipped()`; or a JSON file like those in references/, of which only `points` is
        needed; or a CSV file with the columns `tokens` and `loss`; or a run's folder.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    if name in shipped():
        return _of_json(name, _FOLDER / f"{name}.json")
    path = local_path(name, "--against")
    if path.is_dir():
        return _of_run(name, path)
    if path.is_file():
        return _of_csv(name, path) if path.suffix == ".csv" else _of_json(name, path)
    hint = did_you_mean(name.lower(), shipped())
    raise UserError(
        f"--against {name}: there is no such reference{hint}; give {' or '.join(shipped())}, a "
        "JSON or CSV file with tokens and losses, or the folder of a run"
    )


def run_setting(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {knob: value} of a run's config.json, of the knobs that make losses differ."""
    found = {}
    for section, values in config.items():
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if section in _SECTIONS or f"{section}.{name}" in _OTHERS:
                found[f"{section}.{name}"] = value
    with contextlib.suppress(KeyError, TypeError):
        found["tokens_per_step"] = config["train"]["batch_size"] * found["model.context_length"]
    return found


def _of_json(name: str, path: Path) -> Reference:
    values = read_object(path)
    points, setting = values.get("points"), values.get("setting", {})
    if not isinstance(points, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in points
    ):
        raise UserError(
            f"{path}: points must be a list of [tokens, loss], not {short_repr(points)}"
        )
    if not isinstance(setting, dict):
        raise UserError(f"{path}: setting must be an object, not {short_repr(setting)}")
    sources = values.get("sources", [])
    return _reference(
        name,
        path,
        points,
        title=str(values.get("title", path.stem)),
        sources=[str(each) for each in sources] if isinstance(sources, list) else [str(sources)],
        notes=str(values.get("notes", "")),
        dataset=str(values.get("dataset", "")),
        setting=setting,
    )


def _of_csv(name: str, path: Path) -> Reference:
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        rows, columns = list(reader), reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error})") from error
    column = next((each for each in _LOSSES if each in columns), None)
    if "tokens" not in columns or column is None:
        raise UserError(
            f"{path} has the columns {', '.join(columns) or 'none'}; it needs tokens, and one of "
            f"{', '.join(_LOSSES)}"
        )
    points = [[row["tokens"], row[column]] for row in rows if row[column]]
    return _reference(name, path, points, title=path.stem)


def _of_run(name: str, path: Path) -> Reference:
    tokens, losses = metric_curve(read_lines(path / "metrics.jsonl"), "eval/loss")
    if not len(tokens):
        raise UserError(f"--against {name}: it has no metrics.jsonl with an eval/loss")
    config_path = path / "config.json"
    setting = run_setting(read_object(config_path)) if config_path.exists() else {}
    points = np.stack([tokens, losses], axis=-1).tolist()
    return _reference(name, path, points, title=f"the run in {path}", setting=setting)


def _reference(name: str, path: Path, points: Sequence[Sequence[Any]], **rest: Any) -> Reference:
    pairs = []
    for pair in points:
        try:
            tokens, loss = float(pair[0]), float(pair[1])
        except (TypeError, ValueError):
            tokens = loss = math.nan
        if not (0 < tokens < math.inf and math.isfinite(loss)):
            raise UserError(
                f"{path}: a point must be [tokens, loss], two numbers with tokens greater than 0, "
                f"not {short_repr(pair)}"
            )
        pairs.append((tokens, loss))
    pairs = sorted(dict(pairs).items())  # of equal tokens the last one counts
    if not pairs:
        raise UserError(f"{path} has no points")
    tokens, losses = np.array(pairs, np.float64).T
    return Reference(name, tokens=tokens, losses=losses, **rest)
