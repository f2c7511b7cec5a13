"""Do relative positions predict chorales better than learned ones, as Music Transformer says?"""

from gpt2_jax.sweeps import Sweep, arms, product, seeds

# 400 of the config's 1,500 steps, for time.
LENGTH = {
    "train.total_steps": 400,
    "schedule.warmup_steps": 40,
    "eval.every": 200,
    "checkpoint.every": 400,
}


def get_sweep():
    """Returns the sweep."""
    return Sweep(
        base="configs/music.py",
        points=product(
            arms({name: LENGTH | {"model.position": name} for name in ("learned", "relative")}),
            seeds(3),
        ),
        baseline="learned",
        metric="eval/loss",
        # A hundredth of a nat a token is 0.024 a note; a 5-gram and an 8-gram differ by 0.57.
        delta=0.01,
    )
