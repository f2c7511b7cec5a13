"""Does the best learning rate stay where it is when the model grows wider, with muP and without?"""

from gpt2_jax.sweeps import Sweep, arms, axis, logspace2, product, seeds, zipped

_WIDTHS = [64, 128, 256]


def get_sweep():
    """Returns the sweep."""
    return Sweep(
        base="configs/ablation_byte.py",
        points=product(
            arms({"standard": {}, "muP": {"model.mup_base_width": 64}}),
            zipped(
                axis("model.d_model", _WIDTHS),
                axis("model.num_heads", [width // 32 for width in _WIDTHS]),
            ),
            axis("schedule.learning_rate", logspace2(-9, -5)),
            seeds(1),
        ),
        metric="eval/loss",
        overrides={"train.total_steps": 250},
    )
