"""Computes plain answers to lm-eval's requests, with which the harness is compared.

A plain log-probability comes from one uncached forward over what fits the context, and a greedy
text from one such forward per token.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.model.build import build_model
from gpt2_jax.model.gpt2 import GPT2
from tests.inference.tiny import noisy_params, tiny_config

CONFIG = tiny_config(context_length=37)  # no power of two, nor a multiple of eight
EOT = 256
LENGTH = CONFIG.model.context_length
needs_lm_eval = pytest.mark.lm_eval


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    """Returns lm-eval's requests with these arguments."""
    instance = importlib.import_module("lm_eval.api.instance").Instance
    return [instance(kind, {}, args, index) for index, args in enumerate(arguments)]


@functools.cache
def _params() -> Any:
    return noisy_params(CONFIG)


@jax.jit
def _forward(params: Any, tokens: jax.Array) -> jax.Array:
    model = build_model(CONFIG.model, CONFIG.compute)
    return model.apply({"params": params}, tokens, method=GPT2.logits)[0]


def logits_after(tokens: Sequence[int]) -> np.ndarray:
    """Returns float64 logits [T, V] of one uncached forward pass."""
    inputs = np.zeros((1, LENGTH), np.int32)
    inputs[0, : len(tokens)] = tokens
    return np.asarray(_forward(_params(), jnp.asarray(inputs))[0, : len(tokens)], np.float64)


def plain(context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
    """Returns (log-probability, greedy) of a continuation after as much context as fits."""
    tokens = [*context, *continuation][-(LENGTH + 1) :]
    logits = logits_after(tokens[:-1])[-len(continuation) :]
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    picked = np.asarray(logprobs)[np.arange(len(continuation)), list(continuation)]
    return float(picked.sum()), bool((logits.argmax(-1) == continuation).all())


def plain_greedy(prompt: Sequence[int], count: int) -> list[int]:
    """Returns the most probable tokens after a prompt, one forward for each."""
    tokens = [*prompt]
    for _ in range(count):
        tokens.append(int(logits_after(tokens)[-1].argmax()))
    return tokens[len(prompt) :]
