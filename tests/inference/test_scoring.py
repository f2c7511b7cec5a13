"""Scoring in batches gives what one full forward pass per continuation gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import MeshConfig
from gpt2_jax.errors import UserError
from gpt2_jax.inference import batching, scoring
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.scoring import Scorer, encode_pair, windows
from gpt2_jax.model.build import build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state
from tests.inference.tiny import noisy_params, tiny_config

_CONFIG = tiny_config(context_length=37)  # no power of two, nor a multiple of eight
_LENGTH = _CONFIG.model.context_length


@pytest.fixture(scope="module")
def params():
    return noisy_params(_CONFIG)


def expected(params, context, continuation):
    """(log-probabilities, greedy) from one forward over what fits of the two."""
    tokens = (*context, *continuation)[-(_LENGTH + 1) :]
    inputs = np.zeros((1, _LENGTH), np.int32)
    inputs[0, : len(tokens) - 1] = tokens[:-1]
    logits = _forward(params, jnp.asarray(inputs))[0, len(tokens) - 1 - len(continuation) :]
    logits = np.asarray(logits, np.float64)[: len(continuation)]
    logprobs = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    logprobs -= logits.max(1, keepdims=True)
    targets = np.array(continuation)
    return logprobs[np.arange(len(targets)), targets], logits.argmax(1) == targets


@jax.jit
def _forward(params, tokens):
    model = build_model(_CONFIG.model, _CONFIG.compute)
    return model.apply({"params": params}, tokens, method=GPT2.logits)[0]


def random_requests(count, seed=0):
    """Contexts and one to four continuations of all lengths, some too long together."""
    rng = np.random.default_rng(seed)

    def text(low, high):
        return tuple(rng.integers(0, 257, rng.integers(low, high + 1)).tolist())

    requests = [
        Request(
            text(1, _LENGTH + 8), tuple(text(1, _LENGTH // 2) for _ in range(rng.integers(1, 5)))
        )
        for _ in range(count)
    ]
    whole = Request((256,), (text(_LENGTH, _LENGTH),))
    return [*requests, whole, Request((5,), ((7,), (8, 9)))]


@pytest.mark.parametrize(
    "tokens_per_batch", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (800, 100_000))]
)
def test_batches_give_what_single_forwards_give(params, tokens_per_batch):
    requests, mesh = random_requests(25), None
    if tokens_per_batch == 8:  # a program for every shape: few requests, on one device
        requests, mesh = random_requests(3), make_mesh(MeshConfig(), jax.devices()[:1])
    scorer = Scorer(
        params, _CONFIG.model, _CONFIG.compute, mesh=mesh, tokens_per_batch=tokens_per_batch
    )
    found = dict(scorer.score(requests))
    assert sorted(found) == list(range(len(requests)))
    seen = set()
    for index, request in enumerate(requests):
        assert len(found[index]) == len(request.continuations)
        for likelihood, continuation in zip(found[index], request.continuations, strict=True):
            logprobs, greedy = expected(params, request.context, continuation)
            np.testing.assert_allclose(likelihood.logprobs, logprobs, rtol=1e-5, atol=2e-5)
            np.testing.assert_array_equal(likelihood.greedy, greedy)
            assert likelihood.total == pytest.approx(logprobs.sum(), rel=1e-5)
            seen.update(greedy.tolist())
    assert seen == {True, False} or len(requests) < 25


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(2, 2, 2), (8, 1, 1), (1, 4, 2)])
def test_a_model_that_is_cut_over_a_mesh_scores_the_same(axes):
    config = tiny_config(context_length=_LENGTH + 1)  # which the mesh divides
    params, mesh = noisy_params(config), make_mesh(MeshConfig(*axes))
    abstract = abstract_state(config, make_optimizer(config), mesh, Rules()).params
    cut = jax.device_put(params, jax.tree.map(lambda leaf: leaf.sharding, abstract))
    # With at most two continuations there are two programs for each mesh.
    requests = [Request(c, each[:2]) for c, each in random_requests(6, seed=1)]
    expected = dict(Scorer(params, config.model, config.compute).score(requests, [3, 5]))
    found = dict(Scorer(cut, config.model, config.compute, mesh=mesh).score(requests, [3, 5]))
    for index in expected:
        for one, other in zip(found[index], expected[index], strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-5, atol=2e-5)
            np.testing.assert_array_equal(one.greedy, other.greedy)
            np.testing.assert_array_equal(one.allowed, other.allowed)


@pytest.mark.slow
def test_excluded_tokens_can_not_win(params):
    scorer, context = Scorer(params, _CONFIG.model, _CONFIG.compute), (1, 2, 3)
    everything = tuple((token,) for token in range(257))

    def order(excluded):
        ((_, found),) = scorer.score([Request(context, everything)], excluded)
        return found, np.argsort([-likelihood.total for likelihood in found])

    found, best = order(())
    assert all((one.allowed == one.greedy).all() for one in found)
    found, same = order(best[:2].tolist())
    np.testing.assert_array_equal(best, same)
    assert found[best[0]].greedy.all()
    assert [i for i, one in enumerate(found) if one.allowed.all()] == [best[2]]


@pytest.mark.slow
def test_continuations_of_one_context_are_scored_apart_from_each_other(params):
    scorer = Scorer(params, _CONFIG.model, _CONFIG.compute)
    context, one, other = (1, 2, 3, 4), (5, 6, 7), (250, 251)
    ((_, both),) = scorer.score([Request(context, (one, other))])
    ((_, alone),) = scorer.score([Request(context, (other,))])
    np.testing.assert_allclose(both[1].logprobs, alone[0].logprobs, rtol=1e-5)


def test_a_continuation_longer_than_the_context_is_refused(params):
    scorer = Scorer(params, _CONFIG.model, _CONFIG.compute)
    with pytest.raises(UserError, match="has 38 tokens, more than the model's context of 37"):
        list(scorer.score([Request((1,), ((2,) * 38,))]))


def test_a_continuation_without_tokens_is_certain(params):
    scorer = Scorer(params, _CONFIG.model, _CONFIG.compute)
    ((_, (empty, one)),) = scorer.score([Request((1, 2), ((), (3,)))])
    assert empty.total == 0 and empty.greedy.all() and len(one.logprobs) == 1
    ((_, (alone,)),) = scorer.score([Request((1, 2), ((),))])
    assert alone.total == 0


def test_few_programs_are_compiled(params, monkeypatch):
    requests = random_requests(60, seed=3)
    scorer = Scorer(params, _CONFIG.model, _CONFIG.compute, tokens_per_batch=512)
    programs = set()

    def likelihoods(model, params, rules, prefixes, lengths, chunks, targets, banned):
        programs.add((prefixes.shape, chunks.shape))
        return (np.zeros(targets.shape),) * 3

    monkeypatch.setattr(scoring, "_likelihoods", likelihoods)
    assert len(list(scorer.score(requests))) == len(requests)
    pieces = [*batching.split_requests(requests, _LENGTH)]
    assert len(programs) < len({piece.shape for piece in pieces}) / 2


def test_batches_of_equal_shapes_share_a_program(params):
    scoring._likelihoods.clear_cache()
    for token in (3, 4):
        scorer = Scorer(params, _CONFIG.model, _CONFIG.compute)
        list(scorer.score([Request((1, 2, token), ((token, 5), (6,)))]))
        assert scoring._likelihoods._cache_size() == 1


def test_shapes_that_few_requests_have_join_others_that_have_room():
    requests = random_requests(200, seed=5)
    pieces = [*batching.split_requests(requests, _LENGTH)]
    for least in (0, 300, 2000, 10**9):
        merged = batching._merge_shapes(pieces, least)
        kept = sorted(piece for alike in merged.values() for piece in alike)
        assert kept == sorted(pieces)
        for shape, alike in merged.items():
            assert all(shape.covering(piece.shape) == shape for piece in alike)
            alone = all(other == shape or other.fan != shape.fan for other in merged)
            assert alone or len(alike) * shape.tokens >= least
    assert len(merged) == len({piece.shape.fan for piece in pieces})


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("slots", [100, 700, 10**9])
def test_batches_stay_in_their_budget(slots, devices):
    pieces = [*batching.split_requests(random_requests(200, seed=6), _LENGTH)]
    budget = batching.Budget(600, slots, devices)
    seen = []
    for shape, rows, batch in batching.make_batches(pieces, budget):
        seen += batch
        assert len(batch) <= rows and rows % devices == 0
        if rows > devices:  # less than a row a device there is not
            assert rows * shape.tokens <= budget.tokens
            assert rows * shape.slots <= budget.slots
    assert sorted(seen) == sorted(pieces)


@pytest.mark.parametrize("length", [1, 36, 37, 38, 100, 111])
@pytest.mark.parametrize("stride", [1, 10, 37])
def test_windows_score_every_token_once_after_as_many_as_fit(length, stride):
    tokens = list(range(1, length + 1))
    scored = []
    for number, (context, (continuation,)) in enumerate(windows(tokens, 0, 37, stride)):
        scored += continuation
        assert len(context) >= 1 and len(context) + len(continuation) <= 38
        inputs = (*context, *continuation)
        assert list(inputs) == list(range(inputs[0], inputs[-1] + 1))  # a stretch of the text
        assert number == 0 or len(inputs) == 38  # after the first, the context is full
        assert number == 0 or len(continuation) <= stride
    assert scored == tokens


def test_windows_are_those_of_lm_eval():
    """The example of its documentation: ten tokens, a context of four, no overlap."""
    found = windows([*range(10)], 99, 4, 4)
    assert found == [
        Request((99,), ((0, 1, 2, 3),)),
        Request((3,), ((4, 5, 6, 7),)),
        Request((5, 6, 7), ((8, 9),)),
    ]


def test_pairs_are_cut_where_the_context_ends():
    byte = ByteTokenizer()
    assert encode_pair(byte, "ab", " c") == ((97, 98), (32, 99))
    assert encode_pair(byte, "ab  ", "c") == ((97, 98), (32, 32, 99))
    assert encode_pair(byte, "", "c") == ((256,), (99,))
    assert encode_pair(byte, " ", "c") == ((256,), (32, 99))
    assert encode_pair(CharTokenizer("\nab"), "", "b") == ((0,), (2,))
