"""How does the loss fall with the number of parameters?"""

from gpt2_jax.sweeps import Sweep, axis, product, seeds, zipped

_SHAPES = {32: 1, 64: 2, 96: 2, 128: 3, 192: 4}  # {width: layers}


def get_sweep():
    """Returns the sweep."""
    return Sweep(
        base="configs/ablation_byte.py",
        points=product(
            zipped(
                axis("model.d_model", list(_SHAPES)),
                axis("model.num_layers", _SHAPES.values()),
                axis("model.num_heads", [width // 32 for width in _SHAPES]),
                # The best rate falls with the width: this is the base's 2^-8 at its width, 128.
                axis("schedule.learning_rate", [0.5 / width for width in _SHAPES]),
            ),
            seeds(3),
        ),
        metric="eval/loss",
    )
