from __future__ import annotations

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from gpt2_jax.config import (
    ComputeConfig,
    Config,
    EvalConfig,
    MeshConfig,
    ModelConfig,
    TrainConfig,
)
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.errors import UserError
from gpt2_jax.evals.perplexity import BY_POSITION, MixturePerplexity, Perplexity
from gpt2_jax.model.build import boxed_params, build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.positions import unused_axes
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, shardings

T, V = 16, 61
_MODEL = ModelConfig(2, 4, 32, T, V, vocab_multiple=8, dropout=0.1)
_COMPUTE = ComputeConfig(dtype="float32", loss_chunk=8)
# Two batches and a bit of 8 windows: a last window and a last batch that are not full.
_TOKENS = np.random.default_rng(0).integers(0, V, 2 * 8 * T + 3 * T + 6).astype(np.uint16)
_NUM_SCORED = len(_TOKENS) - 1
_CURVES: list = []  # the losses by position of each evaluation
_BYTES = np.random.default_rng(1).integers(0, 5, V)


class Tokenizer:
    """Stands in for a tokenizer, with what the evaluator uses."""

    def byte_lengths(self):
        return _BYTES


@functools.cache
def host_params():
    rng = np.random.default_rng(2)
    boxed = jax.eval_shape(lambda key: boxed_params(_MODEL, key), jax.random.key(0))
    noise = lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32)  # noqa: E731
    return boxed, jax.tree.map(noise, nn.unbox(boxed))


class CountingTokens(TokenArray):
    """Counts the tokens that are read one stretch at a time, which batches are not."""

    read_count = 0

    def read(self, start, length):
        self.read_count += length
        return super().read(start, length)


def evaluate(axes=(1, 1, 1), times=1, num_bytes=None, read=_NUM_SCORED, options=None, **changes):
    boxed, params = host_params()
    train = TrainConfig(batch_size=16, accumulation_steps=2)
    config = Config(model=_MODEL, compute=_COMPUTE, mesh=MeshConfig(*axes), train=train)
    config = dataclasses.replace(config, **changes)
    mesh, rules = make_mesh(config.mesh, jax.devices()[: math.prod(axes)]), Rules()
    placed = jax.device_put(params, shardings(boxed, mesh, rules, unused=unused_axes(_MODEL)))
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), placed
    )
    tokens = CountingTokens(np.array_split(_TOKENS, 3))
    options = {"num_bytes": num_bytes} | (options or {})
    evaluator = Perplexity(config, tokens, Tokenizer(), mesh, rules, abstract, **options)
    assert tokens.read_count == read
    results = [dict(evaluator(placed, lambda: None)) for _ in range(times)]
    curves = [result.pop(BY_POSITION, None) for result in results]
    assert all(result == results[0] for result in results)
    assert all(np.array_equal(curve, curves[0]) for curve in curves if results[0])
    _CURVES.append(curves[0])
    return results[0]


@functools.cache
def nats_by_hand(dtype="float32", T=T):
    """Returns -log p of every token but the first, from the logits of each window by itself."""
    _, params = host_params()
    count = len(_TOKENS) - 1
    windows = np.zeros((-(-count // T), T), np.int32)
    windows.flat[:count] = _TOKENS[:-1]
    model = build_model(_MODEL, dataclasses.replace(_COMPUTE, dtype=dtype))
    run = jax.jit(lambda p, t: model.apply({"params": p}, t, method=GPT2.logits)[0])
    logits = np.asarray(run(params, windows), np.float64).reshape(-1, V)[:count]
    logits -= logits.max(-1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -logprobs[np.arange(count), _TOKENS[1:]]


def by_hand(count=None, T=T):
    nats = nats_by_hand(T=T)[:count]
    loss = nats.mean()
    size = _BYTES[_TOKENS[1 : len(nats) + 1]].sum()
    return {
        "eval/loss": loss,
        "eval/perplexity": math.exp(loss),
        "eval/bits_per_byte": nats.sum() / math.log(2) / size,
    }


def test_every_token_but_the_first_is_scored_once_and_the_same_every_time():
    assert evaluate(times=2) == pytest.approx(by_hand(), rel=1e-6)


def test_eight_devices_score_as_one():
    assert evaluate((2, 2, 2)) == pytest.approx(by_hand(), rel=1e-6)


@pytest.mark.parametrize(("batches", "scored"), [(1, 8 * T), (2, 16 * T), (99, None)])
def test_batches_limits_what_is_scored(batches, scored):
    results = evaluate(eval=EvalConfig(batches=batches), read=scored or _NUM_SCORED)
    assert results == pytest.approx(by_hand(scored), rel=1e-6)


def test_shorter_windows_have_less_context_and_the_same_tokens():
    results = evaluate(options={"context_length": 6})
    assert results == pytest.approx(by_hand(T=6), rel=1e-6)
    assert results["eval/loss"] != pytest.approx(by_hand()["eval/loss"], rel=1e-4)
    part = evaluate(eval=EvalConfig(batches=1), read=8 * T, options={"context_length": 6})
    assert part == pytest.approx(by_hand(8 * T, T=6), rel=1e-6)
    windows = evaluate(
        eval=EvalConfig(batches=1), read=5 * 6, options={"context_length": 6, "limit": 5}
    )
    assert windows == pytest.approx(by_hand(5 * 6, T=6), rel=1e-6)


def test_longer_windows_than_there_are_learned_positions_are_refused():
    with pytest.raises(UserError, match=r"context_length=17 .* context of 16.*position=learned"):
        evaluate(options={"context_length": 17})


def test_a_bfloat16_model_is_scored_by_unrounded_logits():
    compute = dataclasses.replace(_COMPUTE, dtype="bfloat16")
    loss = evaluate(compute=compute)["eval/loss"]
    assert loss == pytest.approx(nats_by_hand("bfloat16").mean(), rel=1e-5)
    assert loss != pytest.approx(nats_by_hand().mean(), rel=1e-6)


def test_no_batches_are_no_numbers():
    assert evaluate(eval=EvalConfig(batches=0), read=0) == {}


def test_known_bytes_are_not_counted_unless_only_a_part_is_scored():
    size = int(_BYTES[_TOKENS].sum())
    assert evaluate(num_bytes=size, read=1) == pytest.approx(by_hand(), rel=1e-6)
    part = evaluate(num_bytes=size, eval=EvalConfig(batches=1), read=8 * T)
    assert part == pytest.approx(by_hand(8 * T), rel=1e-6)


@pytest.mark.parametrize("axes", [(1, 1, 1), (2, 2, 2)])
def test_losses_by_position_are_means_over_windows(axes):
    evaluate(axes)
    nats = np.append(nats_by_hand(), np.full(-_NUM_SCORED % T, np.nan)).reshape(-1, T)
    np.testing.assert_allclose(_CURVES[-1], np.nanmean(nats, axis=0), rtol=1e-6)


class _Fixed:
    bytes_per_token, num_batches, num_windows = 1.0, 1, 1

    by_position = True

    def __init__(self, loss, loss_T):
        self._found = loss, np.array(loss_T)

    def losses(self, params, tick):
        return self._found


def test_the_curve_of_a_mixture_is_the_expected_curve():
    sets = {"a": _Fixed(1.0, [1.5, 0.5]), "b": _Fixed(3.0, [4.0, 2.0])}
    found = dict(MixturePerplexity(sets, [3.0, 1.0])(None, lambda: None))  # pyright: ignore
    assert found["eval/loss"] == pytest.approx(1.5)
    np.testing.assert_allclose(found[BY_POSITION], [2.125, 0.875])
