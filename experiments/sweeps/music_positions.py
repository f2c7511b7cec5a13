"""Do relative positions predict chorales better than learned ones, as Music Transformer says?"""

from gpt2_jax.sweeps import Sweep, axis, product, seeds


def get_sweep():
    """Returns the sweep."""
    return Sweep(
        base="configs/music.py",
        points=product(axis("model.position", ["learned", "relative"]), seeds(3)),
        baseline={"model.position": "learned"},
        metric="eval/loss",
        # A hundredth of a nat a token is two hundredths a note, a tenth of what orders of n-grams
        # differ by.
        delta=0.01,
    )
