"""How much does the loss of the small byte-level model vary with the seed alone?"""

from gpt2_jax.sweeps import Sweep, seeds


def get_sweep():
    """Returns the sweep."""
    return Sweep(base="configs/ablation_byte.py", points=seeds(8), metric="eval/loss", delta=0.01)
