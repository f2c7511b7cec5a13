"""Validation on windows of other lengths, against each window by itself."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from gpt2_jax.config import MeshConfig, from_dict
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.evals.perplexity import Perplexity
from gpt2_jax.evals.validation import ValidationAtLengths
from gpt2_jax.model.build import abstract_params, build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state
from tests.evals.test_perplexity import Tokenizer

T, V = 16, 61
_TOKENS = np.random.default_rng(0).integers(0, V, 8 * T * 3 + 7).astype(np.uint16)


def make_config(position, **changes):
    model = {"num_layers": 2, "num_heads": 4, "d_model": 32, "context_length": T, "vocab_size": V}
    return from_dict(
        {
            "model": model | {"vocab_multiple": 8, "position": position},
            "compute": {"dtype": "float32", "loss_chunk": 8},
            "train": {"batch_size": 8, "total_steps": 2},
            "schedule": {"warmup_steps": 1},
            "eval": changes,
        }
    )


@functools.cache
def params_of(position):
    rng = np.random.default_rng(2)
    noise = lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(noise, abstract_params(make_config(position).model))


def evaluator(config, axes=(1, 1, 1), **options):
    mesh, rules = make_mesh(MeshConfig(*axes), jax.devices()[: int(np.prod(axes))]), Rules()
    abstract = abstract_state(config, make_optimizer(config), mesh, rules).params
    placed = jax.device_put(
        params_of(config.model.position), jax.tree.map(lambda leaf: leaf.sharding, abstract)
    )
    made = Perplexity(config, TokenArray([_TOKENS]), Tokenizer(), mesh, rules, abstract, **options)
    return made, placed


def loss_by_hand(position, length, count):
    """Nats per token of the first `count` targets, from logits of windows by the plain module."""
    config = make_config(position)
    windows = np.zeros((-(-count // length), length), np.int32)
    windows.flat[:count] = _TOKENS[:count]
    model = build_model(config.model, config.compute)  # whose table of distances is clipped
    run = jax.jit(lambda p, t: model.apply({"params": p}, t, method=GPT2.logits)[0])
    logits = np.asarray(run(params_of(position), windows), np.float64).reshape(-1, V)[:count]
    logits -= logits.max(-1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -logprobs[np.arange(count), _TOKENS[1 : count + 1]].mean()


@pytest.mark.slow
@pytest.mark.parametrize("position", ["relative", "rotary", "alibi", "none"])
def test_longer_windows_score_the_same_tokens_with_more_context(position):
    # 20 is no multiple of compute.loss_chunk, nor a divisor of the tokens of a batch.
    for length, batches in ((20, -1), (40, 2)):
        config = make_config(position, batches=batches)
        made, params = evaluator(config, context_length=length)
        count = len(_TOKENS) - 1 if batches < 0 else batches * 8 * T
        assert made.num_windows == -(-count // length)
        expected = loss_by_hand(position, length, count)
        assert made.losses(params, lambda: None)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_eight_devices_score_longer_windows_as_one():
    config = make_config("relative")
    losses = []
    for axes in ((1, 1, 1), (2, 2, 2)):
        made, params = evaluator(config, axes, context_length=27)  # which two devices do not divide
        losses.append(made.losses(params, lambda: None)[0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_losses_at_lengths_have_names_with_the_length():
    def fake(*names):
        return lambda params, tick: iter([(name, float(params)) for name in names])

    both = ValidationAtLengths(
        {
            32: fake("eval/loss", "eval/perplexity"),
            64: fake("eval/web/loss", "eval/loss", "eval/bits_per_byte"),
        }
    )
    assert dict(both(3, lambda: None)) == {
        "eval/loss_at_32": 3.0,
        "eval/web/loss_at_64": 3.0,
        "eval/loss_at_64": 3.0,
    }
