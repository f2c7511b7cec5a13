"""Which position encoding is best at the trained length, and beyond it?"""

from gpt2_jax.sweeps import Sweep, axis, product, seeds


def get_sweep():
    """Returns the sweep."""
    return Sweep(
        base="configs/ablation_byte.py",
        points=product(
            axis("model.position", ["learned", "rotary", "alibi", "relative", "none"]), seeds(3)
        ),
        baseline={"model.position": "learned"},
        metric="eval/loss",
        delta=0.01,
    )
