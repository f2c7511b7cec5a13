"""Runs requests to their end."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.requests import Choice, Request


def finish(engine: Engine, *choices: Choice) -> None:
    """Steps until the texts are complete, and nothing is left to do."""
    for _ in range(1000):
        if all(choice.finished for choice in choices) and not engine.busy:
            return
        engine.step()
    raise AssertionError("the engine does not come to an end")


def run(engine: Engine, request: Request) -> Choice:
    """Returns the one text of a request."""
    (choice,) = engine.submit(request)
    finish(engine, choice)
    return choice


def said(choice: Choice) -> tuple[Any, ...]:
    """Returns all that must be equal to the bit."""
    return choice.tokens, choice.logprobs, choice.prompt_logprobs, choice.stream.sample


def ids(seed: int, length: int) -> list[int]:
    """Returns bytes by chance."""
    return np.random.default_rng(seed).integers(0, 256, length).tolist()
