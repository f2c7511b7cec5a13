"""Do norms before the blocks, and small projections, help a model of two layers?"""

from gpt2_jax.sweeps import Sweep, axis, product, seeds


def get_sweep():
    """Returns the sweep."""
    return Sweep(
        base="configs/ablation_byte.py",
        points=product(
            axis("model.norm_position", ["pre", "post"]),
            axis("model.residual_init", ["scaled", "plain"]),
            seeds(3),
        ),
        baseline={"model.norm_position": "pre", "model.residual_init": "scaled"},
        metric="eval/loss",
        delta=0.01,
        # Without warmup, because warmup is said to be what norms behind the blocks need.
        overrides={
            "model.num_layers": 2,
            "train.total_steps": 500,
            "schedule.warmup_steps": 0,
        },
    )
