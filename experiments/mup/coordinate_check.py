"""Checks muP: after some training steps, wide models have activations as large as narrow ones.

Command (some minutes on two cores; writes coordinate_check.json, and with the extra `plots`
coordinate_check.png):
  python experiments/mup/coordinate_check.py --out experiments/mup/results

Models that differ only in their width D, and have more heads of one width, train for some steps at
one constant learning rate, with muP and in the standard parametrization. Of the outputs of the
embeddings, of attention and of the MLP (mean over layers), and of the logits, the mean of |x| over
all positions is a power of D; its exponent is the slope of log |x| against log D. With muP it must
be near 0 after the last step, and without it somewhere large (Yang et al. 2022, appendix D.1). The
logits of new parameters may fall as D^-1/2 with muP, until the output matrix has learned.

The exit status is 1 if the check fails, and 2 for a wrong command.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import Config, from_dict
from gpt2_jax.data.batch import Batch
from gpt2_jax.errors import UserError
from gpt2_jax.model.build import build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state, init_state
from gpt2_jax.training.step import compile_train_step, step_numbers

OUTPUTS = ("embedding", "attention", "mlp", "logits")
ARMS = ("muP", "standard")
FLAT = 0.1
"""The largest |slope| after the last step with which muP passes."""
STEEP = 0.3
"""The largest |slope| without muP must exceed this, or the check would show nothing."""
_VOCAB = 64


class Setting(NamedTuple):
    """Describes a check; the defaults are those of the command."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    base_width: int = 32
    head_dim: int = 32
    num_layers: int = 2
    learning_rate: float = 1e-2
    steps: int = 10
    seeds: int = 5
    optimizer: str = "adamw"
    batch_size: int = 16
    context_length: int = 64


def config_of(setting: Setting, width: int, arm: str, seed: int = 0) -> Config:
    """Returns the config of one run.

    Raises:
      UserError: for a width that is no multiple of the head width, or an optimizer without muP.
    """
    if width % setting.head_dim:
        raise UserError(
            f"--widths {width} must be a multiple of --head_dim {setting.head_dim}: heads have one "
            "width in all models"
        )
    model = {
        "num_layers": setting.num_layers,
        "num_heads": width // setting.head_dim,
        "d_model": width,
        "context_length": setting.context_length,
        "vocab_size": _VOCAB,
        "vocab_multiple": 1,
        "mup_base_width": setting.base_width if arm == "muP" else None,
    }
    rate = setting.learning_rate
    schedule = {"learning_rate": rate, "min_learning_rate": rate, "warmup_steps": 0}
    train = {"batch_size": setting.batch_size, "total_steps": setting.steps, "seed": seed}
    return from_dict(
        {
            "model": model,
            "compute": {"dtype": "float32"},
            "optimizer": {"name": setting.optimizer},
            "schedule": {"name": "constant", **schedule},
            "train": train,
        }
    )


def sizes_by_step(setting: Setting, width: int, arm: str) -> np.ndarray:
    """Returns the mean of |x| before the first step and after each, [seeds, steps + 1, OUTPUTS]."""
    config = config_of(setting, width, arm)
    optimizer, rules = make_optimizer(config), Rules()
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    abstract = abstract_state(config, optimizer, mesh, rules)
    step = compile_train_step(config, optimizer, mesh, rules, abstract)
    model = build_model(config.model, config.compute)
    measure = jax.jit(lambda params, tokens: _sizes(model, params, tokens))
    sizes = []
    for seed in range(setting.seeds):
        config = config_of(setting, width, arm, seed)
        state, numbers = init_state(config, optimizer, abstract), step_numbers(config, mesh)
        batches = [Batch(jnp.asarray(tokens)) for tokens in _tokens(setting, seed)]
        held_out = batches[-1].inputs
        of_seed = [measure(state.params, held_out)]
        for batch in batches[:-1]:
            state, _ = step(state, batch, numbers)
            of_seed.append(measure(state.params, held_out))
        sizes.append(np.asarray(jax.device_get(of_seed), np.float64))
    return np.stack(sizes)


def _tokens(setting: Setting, seed: int) -> np.ndarray:
    """Returns uint16 [steps + 1, B, T + 1], in which most tokens follow from the one before."""
    shape = (setting.steps + 1, setting.batch_size, setting.context_length + 1)
    rng = np.random.default_rng(seed)
    pace = rng.choice([1, 1, 1, 7], shape)
    pace[:, :, 0] = rng.integers(0, _VOCAB, shape[:2])
    return (np.cumsum(pace, axis=-1) % _VOCAB).astype(np.uint16)


def _sizes(model: GPT2, params: Any, tokens: jax.Array) -> jax.Array:
    """Returns the mean of |x| of each of OUTPUTS, float32 [OUTPUTS]."""
    captured = {"_embed", "__call__", "unembed"}
    _, state = model.apply(
        {"params": params},
        tokens,
        method=GPT2.logits,
        mutable=["intermediates"],
        capture_intermediates=lambda _, method: method in captured,
    )
    found = state["intermediates"]
    outputs = (
        found["_embed"][0],
        found["h"]["attn"]["__call__"][0][0],  # beside it are a cache and values
        found["h"]["mlp"]["__call__"][0],
        found["unembed"][0],
    )
    return jnp.stack([jnp.mean(jnp.abs(output)) for output in outputs])


def slopes(sizes: dict[int, np.ndarray]) -> np.ndarray:
    """Returns the slope of log |x| against log D by least squares, [seeds, steps + 1, OUTPUTS].

    Args:
      sizes: for each width what `sizes_by_step` returns.
    """
    log_widths = np.log(list(sizes))
    logs = np.log(np.stack(list(sizes.values())))
    centered = log_widths - log_widths.mean()
    return np.tensordot(centered / np.square(centered).sum(), logs, 1)


def check(setting: Setting) -> dict[str, Any]:
    """Runs a check; returns its result as JSON's types.

    `slopes` are means over seeds after the last step, `deviations` those between seeds, and `sizes`
    has the means of |x| as [width][step].
    """
    slope, deviation, size = {}, {}, {}
    for arm in ARMS:
        sizes = {width: sizes_by_step(setting, width, arm) for width in setting.widths}
        last = slopes(sizes)[:, -1]
        spread = last.std(0, ddof=1) if setting.seeds > 1 else np.zeros(len(OUTPUTS))
        slope[arm] = dict(zip(OUTPUTS, last.mean(0).tolist(), strict=True))
        deviation[arm] = dict(zip(OUTPUTS, spread.tolist(), strict=True))
        size[arm] = {
            name: {width: each[..., i].mean(0).tolist() for width, each in sizes.items()}
            for i, name in enumerate(OUTPUTS)
        }
    with_mup, without = (max(map(abs, slope[arm].values())) for arm in ARMS)
    return {
        "setting": setting._asdict(),
        "passed": with_mup <= FLAT and without > STEEP,
        "slopes": slope,
        "deviations": deviation,
        "sizes": size,
    }


def table(result: dict[str, Any]) -> str:
    """Returns the slopes of a result as a table in Markdown."""
    lines = ["| slope of log \\|x\\| | " + " | ".join(ARMS) + " |", "|---|---:|---:|"]
    for name in OUTPUTS:
        cells = [
            f"{result['slopes'][arm][name]:+.3f} ± {result['deviations'][arm][name]:.3f}"
            for arm in ARMS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(result: dict[str, Any], path: Path) -> bool:
    """Draws |x| against the width; returns whether it could, for which matplotlib is needed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(
        2, len(OUTPUTS), figsize=(11, 5.5), sharex=True, sharey="col", layout="constrained"
    )
    steps = result["setting"]["steps"]
    for axes_of_arm, arm in zip(grid, ARMS, strict=True):
        for axes, name in zip(axes_of_arm, OUTPUTS, strict=True):
            by_width = result["sizes"][arm][name]
            widths = [int(width) for width in by_width]
            for step in range(steps + 1):
                sizes = [by_step[step] for by_step in by_width.values()]
                axes.plot(widths, sizes, "o-", ms=3, color=plt.get_cmap("viridis")(step / steps))
            axes.set(xscale="log", yscale="log")
            axes.set_title(f"{name}, {arm}: slope {result['slopes'][arm][name]:+.2f}", fontsize=9)
            axes.set_xticks(widths, [str(width) for width in widths])
            axes.minorticks_off()
            axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("width D")
    for axes in grid[:, 0]:
        axes.set_ylabel("mean |x|")
    figure.suptitle(f"Before the first step (dark) to after {steps} (bright)", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    widths = Setting().widths
    parser.add_argument(
        "--widths", type=int, nargs="+", default=widths, help=f"d_model (default {widths})"
    )
    helps = {
        "base_width": "width at which muP is the standard parametrization",
        "head_dim": "width of a head",
        "num_layers": "blocks",
        "learning_rate": "of every step",
        "steps": "training steps",
        "seeds": "seeds to average over",
        "optimizer": "adamw, lion or muon",
    }
    for name, text in helps.items():
        default = getattr(Setting(), name)
        text = f"{text} (default {default})"
        parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    args = parser.parse_args(words)
    setting = Setting(**{name: getattr(args, name) for name in helps}, widths=tuple(args.widths))
    try:
        _refuse(setting, args.out)
        result = check(setting)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    result["jax"] = jax.__version__
    (args.out / "coordinate_check.json").write_text(json.dumps(result, indent=1) + "\n")
    if not draw(result, args.out / "coordinate_check.png"):
        print("no drawing: it needs pip install 'gpt2_jax[plots]'", file=sys.stderr)
    print(table(result))
    print(
        f"{'passed' if result['passed'] else 'FAILED'}: after {setting.steps} steps every slope "
        f"with muP must be within {FLAT} of 0, and one without it must exceed {STEEP}"
    )
    return 0 if result["passed"] else 1


def _refuse(setting: Setting, out: Path) -> None:
    """Refuses a wrong setting before anything is computed, and makes the folder."""
    for name in ("base_width", "head_dim", "num_layers", "steps", "seeds"):
        if getattr(setting, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(setting, name)}")
    if len(set(setting.widths)) < 2:
        raise UserError("--widths must name two widths or more, because a slope needs them")
    for width in setting.widths:
        config_of(setting, width, "muP")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written to: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
