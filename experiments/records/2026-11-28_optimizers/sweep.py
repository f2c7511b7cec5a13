"""Which of AdamW, Lion and Muon is best at its own best learning rate?"""

from gpt2_jax.sweeps import Sweep, arms, axis, best_of, chain, logspace2, product, seeds

_ADAMW = {"adamw": {"optimizer.name": "adamw"}}
# Lion's authors advise a rate 3 to 10 times lower and a decay as many times higher.
_LION = {
    "lion": {
        "optimizer.name": "lion",
        "optimizer.beta2": 0.99,
        "optimizer.weight_decay": 0.5,
    }
}
_MUON = {"muon": {"optimizer.name": "muon"}}
_RATE = "schedule.learning_rate"


def get_sweep():
    """Returns the sweep."""
    tune = chain(
        product(arms(_ADAMW), axis(_RATE, logspace2(-10, -6)), seeds(1, first=100)),
        product(arms(_MUON), axis(_RATE, logspace2(-10, -4)), seeds(1, first=100)),
        product(arms(_LION), axis(_RATE, logspace2(-13, -9)), seeds(1, first=100)),
    )
    confirm = best_of(
        "tune",
        per=arms(_ADAMW | _LION | _MUON),
        then=seeds(5),
        overrides={"train.total_steps": 1000},
    )
    return Sweep(
        base="configs/ablation_byte.py",
        stages=[tune, confirm],
        baseline="adamw",
        metric="eval/loss",
        delta=0.01,
        overrides={"train.total_steps": 500},
    )
