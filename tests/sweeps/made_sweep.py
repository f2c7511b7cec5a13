"""Writes the folder of a sweep that was never run, with made-up results."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STEPS, TOKENS = 200, 1000  # of a run, and of a step


def write_sweep(
    folder: Path,
    finals: Mapping[str, Sequence[float]],
    *,
    baseline: str | None,
    delta: float | None = 0.01,
    metric: str = "eval/loss",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    ends: Mapping[tuple[str, int], tuple[str, str]] | None = None,
    stage: str = "main",
    first_seed: int = 0,
) -> Path:
    """Writes a sweep of one stage and returns its folder; a further stage can be added to it.

    Args:
      folder: where to write.
      finals: {arm: the metric of each seed}.
      baseline: the arm that the others are compared with.
      delta: the difference that does not matter.
      metric: what is compared.
      overrides: {arm: its overrides}; by default, the arm is the value of model.position.
      ends: {(arm, seed): (state, message)} of the points that are not done.
      stage: of the points.
      first_seed: of each arm.
    """
    path, stages = folder / "sweep.json", []
    if path.exists():
        stages = json.loads(path.read_text())["stages"]
    sweep = {"sweep_file": "sweeps/positions.py", "base": "configs/tiny.py", "metric": metric}
    sweep |= {"delta": delta, "baseline": baseline, "stages": [*stages, stage]}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sweep))
    rows = []
    for arm, values in finals.items():
        for seed, final in enumerate(values, first_seed):
            own = dict((overrides or {}).get(arm, {"model.position": arm}))
            state, message = (ends or {}).get((arm, seed), ("done", ""))
            rows.append(_write_point(folder, stage, arm, seed, own, state, message, metric, final))
    with (folder / "results.csv").open("a", newline="") as file:
        writer = csv.writer(file)
        if not stages:
            writer.writerow(["name", "stage", "arm", "seed", "state", "steps", "tokens", metric])
        writer.writerows(rows)
    return folder


def _write_point(
    folder: Path,
    stage: str,
    arm: str,
    seed: int,
    overrides: dict[str, Any],
    state: str,
    message: str,
    metric: str,
    final: float,
) -> list[Any]:
    name = f"{stage}-{arm}-s{seed}".replace(" ", "-").replace("/", "-")
    point = folder / "points" / name
    (point / "run").mkdir(parents=True)
    flags = " ".join(f"--config.{key}={value}" for key, value in overrides.items())
    command = f"gpt2-jax train --config configs/tiny.py --workdir {name} {flags}"
    values = {"name": name, "stage": stage, "arm": arm, "seed": seed, "command": command}
    values |= {"overrides": {**overrides, "train.seed": seed}, "config_hash": "0" * 64}
    (point / "point.json").write_text(json.dumps(values))
    status = {"exit_status": {"done": 0, "diverged": 76}.get(state, 2), "state": state}
    status |= {"message": message, "seconds": 40.0 + seed, "attempts": 1}
    (point / "status.json").write_text(json.dumps(status))
    config: dict[str, dict[str, Any]] = {"model": {"position": "learned", "num_layers": 2}}
    config |= {"train": {"seed": seed}, "log": {"every": seed}}
    for key, value in overrides.items():
        section, knob = key.split(".")
        config.setdefault(section, {})[knob] = value
    (point / "run" / "config.json").write_text(json.dumps(config))
    steps = {"done": STEPS, "diverged": STEPS // 4}.get(state, 0)
    lines = _lines(steps, final, seed, metric)
    content = "".join(json.dumps(line) + "\n" for line in lines)
    (point / "run" / "metrics.jsonl").write_text(content)
    end = final if state == "done" else ""
    return [name, stage, arm, seed, state, steps or "", steps * TOKENS or "", end]


def _lines(steps: int, final: float, seed: int, metric: str) -> list[dict[str, Any]]:
    """Returns lines like a run's, whose metric falls to `final` at the last step."""
    random = np.random.default_rng(seed)
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        left = (1 - step / STEPS) ** 2
        line = {"step": step, "tokens": step * TOKENS, "learning_rate": 1e-3}
        speed = 5000.0 + 500 * (seed % 3)
        lines.append({**line, "loss": final + 2 * left, "tokens_per_second": speed})
        if step % 20 == 0:
            noise = 0.02 * random.normal() * left
            lines.append({"step": step, metric: final + 2 * left + noise})
    return lines
