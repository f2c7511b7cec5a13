"""Which position encoding is best at the trained length, and beyond it?"""

from gpt2_jax.sweeps import Sweep, arms, product, seeds


def get_sweep():
    """Returns the sweep."""
    beyond = {"eval.context_lengths": "256,512"}  # learned positions end at the trained length
    return Sweep(
        base="configs/ablation_byte.py",
        points=product(
            arms(
                {
                    "learned": {"model.position": "learned"},
                    "rotary": {"model.position": "rotary", **beyond},
                    "ALiBi": {"model.position": "alibi", **beyond},
                    "relative": {"model.position": "relative", **beyond},
                    "none": {"model.position": "none", **beyond},
                }
            ),
            seeds(3),
        ),
        baseline="learned",
        metric="eval/loss",
        delta=0.01,
    )
