"""Do SwiGLU, squared ReLU or normalized queries and keys help the small byte-level model?"""

from gpt2_jax.sweeps import Sweep, arms, product, seeds


def get_sweep():
    """Returns the sweep."""
    return Sweep(
        base="configs/ablation_byte.py",
        points=product(
            arms(
                {
                    "GPT-2": {},
                    "SwiGLU": {"model.activation": "swiglu"},
                    "squared ReLU": {"model.activation": "relu2"},
                    "normalized queries and keys": {"model.qk_norm": "rms"},
                }
            ),
            seeds(5),
        ),
        baseline="GPT-2",
        metric="eval/loss",
        delta=0.01,
    )
