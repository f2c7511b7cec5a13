r"""Fits L(N) = E + A N^-alpha to the losses of a sweep over sizes, with intervals.

    python experiments/scaling/fit.py runs/scaling --out experiments/records/2026-11-28_scaling

N counts the parameters without embeddings. The fit is least squares over the mean loss of each
size. Two intervals are printed, because they answer different questions. The first (95 %) repeats
the fit with means drawn from Student's t distribution, whose variance all sizes share, and so says
how far the noise of seeds moves it. The second is the range of the fits that leave one size out,
and so says how far it depends on which sizes were chosen. Neither says that the law holds beyond
the sizes. With --out, writes fit.json and, if matplotlib is there (extra `plots`), fit.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from gpt2_jax.config import from_dict
from gpt2_jax.data.token_sets import resolve_vocab_size
from gpt2_jax.errors import UserError
from gpt2_jax.model.flops import num_params
from gpt2_jax.model.positions import ENCODINGS
from gpt2_jax.sweeps.folder import DONE
from gpt2_jax.sweeps.report.outcomes import read_sweep

_RESAMPLES = 2000
_NAMES = ("E", "A", "alpha")


def main() -> None:
    """Reads the sweep, fits, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, help="folder of the sweep, or of its record")
    parser.add_argument("--out", type=Path, help="folder for fit.json and fit.png")
    args = parser.parse_args()
    try:
        losses = losses_by_size(args.sweep)
        result = fit_with_intervals(losses)
    except UserError as error:
        parser.error(str(error))
    print_result(losses, result)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        sizes = {str(size): list(values) for size, values in losses.items()}
        text = json.dumps({"losses": sizes, **result}, indent=2)
        (args.out / "fit.json").write_text(f"{text}\n")
        plot(losses, result, args.out / "fit.png")


def losses_by_size(folder: Path) -> dict[int, list[float]]:
    """Returns {parameters without embeddings: the metric of each seed}, smallest first.

    Raises:
      UserError: if the folder is no sweep, or has fewer than four sizes or no size with two seeds.
    """
    outcomes = read_sweep(folder)
    losses: dict[int, list[float]] = {}
    for point in outcomes.points:
        if point.state == DONE and point.config:
            losses.setdefault(_size(point.config), []).append(point.scores[outcomes.metric])
    if len(losses) < 4:
        raise UserError(
            f"{folder} has {len(losses)} finished sizes, and three numbers cannot be fitted to "
            "fewer than four: give it a sweep over more"
        )
    if max(map(len, losses.values())) < 2:
        raise UserError(f"{folder} has one seed of each size: intervals need at least two")
    return dict(sorted(losses.items()))


def _size(values: Mapping[str, Any]) -> int:
    model = resolve_vocab_size(from_dict(dict(values))).model
    tables = 1 if model.tie_embeddings else 2
    rows = tables * model.vocab_size * model.d_model
    return num_params(model) - rows - ENCODINGS[model.position].num_params(model)


def fit(sizes: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Returns (E, A, alpha) of the least squares fit, E and A not negative.

    A is that of sizes in millions of parameters. The best of several starts is taken, since the
    three numbers hang together.
    """
    millions = sizes / 1e6

    def residuals(numbers: np.ndarray) -> np.ndarray:
        floor, log_factor, exponent = numbers
        return floor + np.exp(log_factor) * millions**-exponent - losses

    bounds = ([0.0, -20.0, 1e-3], [losses.min(), 5.0, 3.0])
    starts = [
        (fraction * losses.min(), np.log(max(losses.min() * (1 - fraction), 1e-3)), exponent)
        for fraction in (0.1, 0.5, 0.9)
        for exponent in (0.1, 0.3, 1.0)
    ]
    fits = [least_squares(residuals, start, bounds=bounds, max_nfev=2000) for start in starts]
    floor, log_factor, exponent = min(fits, key=lambda each: each.cost).x
    return np.array([floor, np.exp(log_factor), exponent])


def fit_with_intervals(losses: dict[int, list[float]]) -> dict[str, Any]:
    """Returns the fit, its largest residual, and both intervals of each of its numbers."""
    sizes = np.array(list(losses), float)
    means = np.array([np.mean(values) for values in losses.values()])
    best = fit(sizes, means)
    # Drawing among three seeds, as a bootstrap does, would give far too narrow intervals.
    counts = np.array([len(values) for values in losses.values()])
    freedom = int(counts.sum() - len(counts))
    squares = sum(float(np.var(values)) * len(values) for values in losses.values())
    errors = np.sqrt(squares / freedom / counts)
    random = np.random.default_rng(0)
    resampled = [
        fit(sizes, means + errors * random.standard_t(freedom, len(means)))
        for _ in range(_RESAMPLES)
    ]
    kept = [np.arange(len(sizes)) != left_out for left_out in range(len(sizes))]
    without_one = np.array([fit(sizes[keep], means[keep]) for keep in kept])
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    predicted = best[0] + best[1] * (sizes / 1e6) ** -best[2]
    return {
        "fit": dict(zip(_NAMES, best.tolist(), strict=True)),
        "largest_residual": float(np.abs(predicted - means).max()),
        "interval_of_seeds": {
            name: [float(low[i]), float(high[i])] for i, name in enumerate(_NAMES)
        },
        "range_without_one_size": {
            name: [float(without_one[:, i].min()), float(without_one[:, i].max())]
            for i, name in enumerate(_NAMES)
        },
    }


def print_result(losses: dict[int, list[float]], result: dict[str, Any]) -> None:
    """Prints the losses, and the fit with its intervals."""
    for size, values in losses.items():
        print(f"{size:>12,} parameters: {np.mean(values):.4f} nats, {len(values)} seeds")
    print("L = E + A (N / 1e6)^-alpha")
    for name in _NAMES:
        seeds, sizes = (
            result[key][name] for key in ("interval_of_seeds", "range_without_one_size")
        )
        print(
            f"{name:>6} {result['fit'][name]:.3f}, seeds {seeds[0]:.3f} to {seeds[1]:.3f}, "
            f"without one size {sizes[0]:.3f} to {sizes[1]:.3f}"
        )
    print(f"largest residual {result['largest_residual']:.4f} nats")


def plot(losses: dict[int, list[float]], result: dict[str, Any], path: Path) -> None:
    """Draws the losses and the fit, or says that matplotlib is missing."""
    try:
        from matplotlib.figure import Figure  # an extra
    except ImportError:
        print(f"{path.name} was not drawn: it needs matplotlib (pip install 'gpt2_jax[plots]')")
        return
    sizes = np.array(list(losses), float)
    numbers = result["fit"]
    line = np.geomspace(sizes[0] / 1.3, sizes[-1] * 1.3, 100)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log")
    for size, values in losses.items():
        axes.plot([size] * len(values), values, "o", color="C0", markersize=4)
    curve = numbers["E"] + numbers["A"] * (line / 1e6) ** -numbers["alpha"]
    label = f"{numbers['E']:.2f} + {numbers['A']:.2f} (N / 1e6)^-{numbers['alpha']:.2f}"
    axes.plot(line, curve, color="C1", label=label)
    axes.set_xlabel("parameters without embeddings")
    axes.set_ylabel("held-out loss, nats per token")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
