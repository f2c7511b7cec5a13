"""Follows one text over the saved steps of a run: how the model came to read it as it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gpt2_jax.interpret.attention import head_scores
from gpt2_jax.interpret.comparison import divergences
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.interpret.stream import predicted


def curves(
    steps: Sequence[int], load: Callable[[int], Subject], tokens: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yields what a text is at each step, for JSON, from the first step to the last.

    `loss` is the mean of -log p of its tokens from the second on (None for one token), in nats;
    `head_scores` are those of `attention.head_scores`; `kl` is the mean of KL(last step || this
    one) of the predictions behind its tokens.

    Args:
      steps: in rising order, at least one.
      load: returns the model of a step; the last step is loaded first.
      tokens: ids of the text.

    Raises:
      UserError: as `Run` does.
    """
    last = Run(load(steps[-1]), tokens)
    for step in steps:
        run = last if step == steps[-1] else Run(load(step), tokens)
        logprobs = predicted(run, row=-1, count=1).logprob[:-1].astype(np.float64)
        yield {
            "step": step,
            "loss": float(-logprobs.mean()) if len(logprobs) else None,
            "head_scores": head_scores(run).tolist(),
            "kl": float(divergences(last, run).mean()),
        }
