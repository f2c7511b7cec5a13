"""Taps: nothing for programs that ask for nothing, every value and its edit for those that do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.model import gpt2, taps
from gpt2_jax.model.build import build_decoder, build_model
from gpt2_jax.model.cache import init_cache
from gpt2_jax.model.loss import weighted_cross_entropy
from gpt2_jax.model.params import output_table, unstack
from gpt2_jax.model.taps import EDITS, VALUES, Edit
from tests.inference.tiny import noisy_params, tiny_config

TOKENS = np.arange(8, dtype=np.int32)[None]
ALL = {"x0_residual": True, "value_residual": True, "qk_norm": "rms", "position": "rotary"}


def training(config):
    """Returns the text of loss and gradient of a scanned model with dropout and remat."""
    model = build_model(config.model, config.compute, train=True)

    def loss(params, key):
        hidden, _ = model.apply({"params": params}, TOKENS, rngs={"dropout": key})
        ones = jnp.ones(TOKENS.shape)
        return weighted_cross_entropy(hidden, output_table(params), TOKENS, ones, 257, 0)

    return jax.jit(jax.grad(loss)).lower(noisy_params(config), jax.random.key(0)).as_text()


def decoding(config):
    """Returns the text of a step through a cache, and of the logits of a whole text."""
    model = build_decoder(config.model, config.compute)
    params = unstack(noisy_params(config), config.model.num_layers)
    cache = init_cache(config.model, "float32", 1, 16)
    texts = []
    for arguments in ((TOKENS[:, :1], cache), (TOKENS, None)):

        def logits(params, tokens, cache):
            return model.apply({"params": params}, tokens, cache, method=gpt2.GPT2.logits)

        texts.append(jax.jit(logits).lower(params, *arguments).as_text())
    return "".join(texts)


@pytest.mark.parametrize("program", [training, pytest.param(decoding, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "changes", [{}, pytest.param(ALL, marks=pytest.mark.slow)], ids=["gpt2", "all"]
)
def test_a_program_that_asks_for_nothing_is_what_it_was(monkeypatch, program, changes):
    config = tiny_config(dropout=0.1, remat="full", **changes)
    tapped = program(config)
    assert len(tapped) > 1000

    def patch(tap):
        monkeypatch.setattr(gpt2, "tap", tap)
        monkeypatch.setattr(gpt2, "tap_of", lambda module: lambda *args: tap(module, *args))

    patch(lambda module, name, value: value)
    assert program(config) == tapped
    if program is decoding:
        patch(lambda module, name, value: value * 3 if name == "z" else value)
        assert program(config) != tapped


@pytest.fixture(scope="module")
def model():
    config = tiny_config()
    params = unstack(noisy_params(config), config.model.num_layers)
    return build_decoder(config.model, config.compute), params


def logits(model, edits=None):
    module, params = model
    variables = {"params": params} | ({EDITS: edits} if edits else {})
    return np.asarray(
        jax.jit(lambda v: module.apply(v, TOKENS, method=gpt2.GPT2.logits)[0])(variables)
    )


def test_every_block_shows_the_same_values(model):
    module, params = model
    _, shown = jax.eval_shape(
        lambda p: module.apply({"params": p}, TOKENS, mutable=[VALUES]), params
    )
    names = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(shown[VALUES])
    }
    of_block = {"resid_pre", "attn_in", "resid_mid", "mlp_in", "resid_post"}
    of_block |= {f"attn/{x}" for x in ("q", "k", "v", "scores", "seen", "pattern", "z", "out")}
    of_block |= {f"mlp/{x}" for x in ("pre", "neurons", "out")}
    expected = {f"h_{layer}/{name}" for layer in (0, 1) for name in of_block}
    assert names == expected | {"token", "embedding"}


def test_factors_of_one_change_no_logit_and_others_do(model):
    def edits(factor):
        edit = Edit(jnp.float32(factor))
        block = {
            "attn": {"z": edit, "out": edit},
            "mlp": {"pre": edit, "neurons": edit, "out": edit},
            "resid_mid": edit,
            "resid_post": edit,
        }
        return {"h_0": block, "h_1": block}

    np.testing.assert_allclose(logits(model, edits(1.0)), logits(model), rtol=1e-6, atol=1e-6)
    assert abs(logits(model, edits(0.5)) - logits(model)).max() > 0.1


def test_a_donor_takes_the_place_of_what_it_replaces():
    x = jnp.asarray([[1.0, 2.0], [3.0, 4.0]], jnp.bfloat16)
    replaced = Edit(2.0, jnp.asarray([[True], [False]]), jnp.asarray([7.0, 8.0])).apply(x)
    assert replaced.dtype == jnp.bfloat16
    np.testing.assert_array_equal(replaced, jnp.asarray([[7, 8], [6, 8]], jnp.bfloat16))
    odd = jnp.asarray([0.1, -0.0, jnp.inf, 2e-38])
    assert Edit(1.0).apply(odd).tobytes() == odd.tobytes()
    seen = Edit(replaced=jnp.asarray([True, False]), donor=jnp.ones((), bool)).apply(
        jnp.asarray([False, False])
    )
    assert seen.dtype == bool and seen.tolist() == [True, False]


def test_outside_of_modules_nothing_is_tapped():
    assert taps.untapped("scores", TOKENS) is TOKENS
