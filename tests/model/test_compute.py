"""The knobs of `compute` decide the precision and the random bits of a training step."""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax import api
from gpt2_jax.config import ComputeConfig, Config, ModelConfig, ScheduleConfig, TrainConfig
from gpt2_jax.data.batch import Batch
from gpt2_jax.inference import prefill, scoring, slots
from gpt2_jax.inference.generate import decode_params
from gpt2_jax.model import attention_kernels
from gpt2_jax.model.build import abstract_params, build_decoder, build_model
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context
from gpt2_jax.training import step
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state, init_state

_CONFIG = Config(
    model=ModelConfig(2, 4, 32, 16, vocab_size=61, vocab_multiple=8),
    compute=ComputeConfig(attention="reference", loss_chunk=0),
    schedule=ScheduleConfig("constant", 1e-2, 0.0, 0),
    train=TrainConfig(batch_size=4, total_steps=20),
)


def _with(dropout=0.0, **compute):
    return dataclasses.replace(
        _CONFIG,
        model=dataclasses.replace(_CONFIG.model, dropout=dropout),
        compute=dataclasses.replace(_CONFIG.compute, **compute),
    )


def _setting(config):
    mesh, optimizer = make_mesh(config.mesh, jax.devices()[:1]), make_optimizer(config)
    return mesh, optimizer, abstract_state(config, optimizer, mesh, Rules())


@pytest.mark.parametrize(
    ("compute", "precision"),
    [
        ({"dtype": "float32"}, "HIGHEST"),
        ({"dtype": "bfloat16"}, None),
        ({"dtype": "float32", "precision": "default"}, None),
        ({"dtype": "float32", "precision": "high"}, "HIGH"),
        ({"dtype": "bfloat16", "precision": "highest"}, "HIGHEST"),
    ],
)
def test_every_product_of_a_step_has_the_precision_of_the_config(compute, precision):
    config = _with(**compute)
    mesh, optimizer, state = _setting(config)
    batch, numbers = step.abstract_batch(4, 16, mesh), step.step_numbers(config, mesh)
    with sharding_context(mesh, Rules()):
        jaxpr = str(jax.make_jaxpr(step._train_step(config, optimizer))(state, batch, numbers))
    # A block has six products forward and the loss one, each with two gradients; a scan has one
    # block. Products of the default precision print none.
    products = jaxpr.count("dot_general[")
    assert products == 3 * (6 + 1)
    found = re.findall(r"\bprecision=\(?(?:Precision\.)?(\w+)", jaxpr)
    if config.compute.dtype == "bfloat16":  # on CPUs the loss names none, as its factors are exact
        products -= 3
    assert found == [precision] * products if precision else found == []


def _programs(config, monkeypatch):
    """Returns {name: StableHLO} of every program that computes with the model; compiles none."""
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered, options=None: lowered)
    mesh, optimizer, state = _setting(config)
    rules, decoder = Rules(), build_decoder(config.model, config.compute)
    params = jax.eval_shape(lambda p: decode_params(decoder, p), abstract_params(config.model))
    tokens, lengths = jnp.zeros((2, 8), jnp.int32), jnp.full(2, 8, jnp.int32)
    staged = jax.eval_shape(lambda: prefill.empty_cache(decoder, 1, 16))
    rows = jax.eval_shape(lambda: slots.empty_slots(decoder, 2, 16))
    chunk = (staged, tokens[:1], tokens[:1], jnp.int32(0))
    scorer = build_decoder(config.model, config.compute, scanned=True)
    pairs = jnp.zeros((2, 1, 4), jnp.int32)
    scored = (rules, tokens, lengths, pairs, pairs, None)
    with sharding_context(mesh, rules):
        likelihoods = scoring._likelihoods.lower(scorer, state.params, *scored)
    programs = {
        "train": step.compile_train_step(config, optimizer, mesh, rules, state),
        "eval": step.compile_eval_step(config, 4, mesh, rules, state.params),
        "prefill": prefill.prefill_chunk.lower(decoder, params, *chunk, logprobs=True),
        "decode": slots.decode_block.lower(decoder, params, rows, jnp.int32(4)),
        "score": likelihoods,
        "logits": api._logits.lower(decoder, params, tokens),
        "maps": api._attention_maps.lower(decoder, params, tokens[:1]),
    }
    return {name: lowered.as_text() for name, lowered in programs.items()}  # pyright: ignore


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"plain": True}, marks=pytest.mark.slow),
        pytest.param({"remat": "full", "loss_chunk": 8}, marks=pytest.mark.slow),
    ],
)
def test_float32_is_float32_in_every_program(changes, monkeypatch):
    for name, text in _programs(_with(dtype="float32", **changes), monkeypatch).items():
        products = re.findall(r"stablehlo\.(?:dot\w*|convolution)\b[^\n]*", text)
        assert len(products) >= 5, name
        assert [p for p in products if "precision = [HIGHEST, HIGHEST]" not in p] == [], name


@pytest.mark.parametrize(("precision", "found"), [(None, "HIGHEST"), ("default", "None")])
def test_splash_computes_float32_products_in_the_precision_of_the_config(precision, found):
    compute = ComputeConfig(dtype="float32", precision=precision)
    q = jnp.zeros((1, 128, 2, 64))

    def total(q, k, v):
        fused = attention_kernels.fused_attention
        return fused(q, k, v, None, 0.1, "splash", compute.matmul_precision).sum()

    jaxpr = str(jax.make_jaxpr(jax.grad(total, argnums=(0, 1, 2)))(q, q, q))
    products = jaxpr.count("dot_general[")
    assert products >= 2 + 5  # forward, and backward by the fused kernel
    named = re.findall(r"\bprecision=\(?(?:Precision\.)?(\w+)", jaxpr)
    assert named == ([found] * products if found == "HIGHEST" else [])


def _losses(config, steps=20):
    """Returns the losses of a run on one batch."""
    mesh, optimizer, abstract = _setting(config)
    B, T = config.train.batch_size, config.model.context_length
    tokens = np.random.default_rng(0).integers(0, 61, (B, T + 1), np.uint16)
    batch = jax.device_put(Batch(tokens), step.batch_sharding(mesh))
    run = step.compile_train_step(config, optimizer, mesh, Rules(), abstract)
    state, numbers = init_state(config, optimizer, abstract), step.step_numbers(config, mesh)
    losses = []
    for _ in range(steps):
        state, metrics = run(state, batch, numbers)
        losses.append(float(metrics["loss"]))
    return losses


_FAST = {"dtype": "float32", "attention": "auto", "loss_chunk": 8}


@functools.cache
def _plain_losses():
    return _losses(_with(dtype="float32", plain=True))


@pytest.mark.slow
def test_fast_paths_train_like_plain_operations():
    plain = _plain_losses()
    assert plain[-1] < 0.7 * plain[0]
    assert _losses(_with(**_FAST)) == pytest.approx(plain, rel=5e-6)


@pytest.mark.slow
def test_rounded_factors_train_nearly_like_plain_operations():
    plain, rounded = _plain_losses(), _losses(_with(precision="bfloat16", **_FAST))
    # With this learning rate, rounding has changed the path after some steps.
    assert rounded[:15] == pytest.approx(plain[:15], rel=5e-3)
    assert rounded[:15] != pytest.approx(plain[:15], rel=1e-6)


@pytest.mark.slow
def test_rbg_draws_other_masks_and_trains():
    config = _with(dropout=0.2, dtype="float32", prng="rbg")
    mesh, optimizer, abstract = _setting(config)
    tokens = np.random.default_rng(0).integers(0, 61, (4, 17), np.uint16)
    batch = jax.device_put(Batch(tokens), step.batch_sharding(mesh))
    run = step.compile_train_step(config, optimizer, mesh, Rules(), abstract)
    numbers = step.step_numbers(config, mesh)
    create = jax.jit(lambda: init_state(config, optimizer, abstract))

    def losses(count):
        state, values = create(), []
        for _ in range(count):
            state, metrics = run(state, batch, numbers)
            values.append(float(metrics["loss"]))
        return values

    rbg = losses(20)
    assert rbg[-1] < 0.7 * rbg[0]
    assert losses(2) == rbg[:2]  # a function of the seed
    # Resumed after ten steps: what a checkpoint keeps is the state alone.
    state = create()
    for _ in range(10):
        state, _ = run(state, batch, numbers)
    state = jax.device_put(jax.device_get(state), jax.tree.map(lambda x: x.sharding, abstract))
    rest = []
    for _ in range(10):
        state, metrics = run(state, batch, numbers)
        rest.append(float(metrics["loss"]))
    assert rest == rbg[10:]
    # The first loss again, without the step: with these masks, and with those of the default.
    model, params = build_model(config.model, config.compute, train=True), create().params

    @functools.partial(jax.jit, static_argnums=0)
    def first_loss(prng):
        key = jax.random.fold_in(jax.random.key(config.train.seed, impl=prng), 0)
        return step.weighted_loss(model, params, batch, key) / batch.targets.size

    assert first_loss("rbg") == pytest.approx(rbg[0], rel=1e-5)
    assert abs(first_loss("threefry2x32") / rbg[0] - 1) > 1e-4
