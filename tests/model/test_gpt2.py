from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.model.cache import init_cache
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.loss import weighted_cross_entropy
from gpt2_jax.model.params import unstack


@functools.cache
def _logits(model):
    return jax.jit(lambda p, t: model.apply({"params": p}, t, method=GPT2.logits)[0])


def logits_of(model, params, tokens):
    return _logits(model)(params, tokens)


@functools.cache
def value_and_grad(model):
    """(scanned params, tokens, key) -> (summed loss of the tokens, its gradient), compiled once."""

    def loss(params, tokens, key=None):
        rngs = None if key is None else {"dropout": key}
        blocks = params if model.scanned else unstack(params, model.config.num_layers)
        hidden, _ = model.apply({"params": blocks}, tokens[:, :-1], rngs=rngs)
        weights = jnp.ones(hidden.shape[:2])
        vocab_size, chunk = model.config.vocab_size, model.compute.loss_chunk
        return weighted_cross_entropy(
            hidden, params["wte"], tokens[:, 1:], weights, vocab_size, chunk
        )

    return jax.jit(jax.value_and_grad(loss))


def assert_trees_close(one, other, rel):
    paths = jax.tree_util.tree_leaves_with_path(one)
    for (path, a), b in zip(paths, jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # The bias of the keys has no gradient but rounding: softmax ignores what all scores share.
        error, size = np.abs(a - b).max(), np.abs(b).max()
        assert error <= rel * size + 1e-6, (jax.tree_util.keystr(path), error, size)


def numpy_gpt2(params, config, tokens):
    """OpenAI's model.py written again, in float64, with its [in, out] matrices."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    D, H = config.d_model, config.num_heads
    T = tokens.shape[1]

    def norm(x, p):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * p["scale"] + p["bias"]

    def conv1d(x, p, outputs):
        return x @ p["kernel"].reshape(x.shape[-1], outputs) + p["bias"].reshape(outputs)

    def split_heads(x):
        return x.reshape(*x.shape[:2], H, D // H).transpose(0, 2, 1, 3)

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = params["wte"][np.asarray(tokens)] + params["wpe"][:T]
    for layer in range(config.num_layers):
        p = jax.tree.map(lambda leaf, i=layer: leaf[i], params["h"])
        q, k, v = map(
            split_heads,
            np.split(conv1d(norm(x, p["ln_1"]), p["attn"]["c_attn"], 3 * D), 3, axis=-1),
        )
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(D // H)
        scores = np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf)
        probs = np.exp(scores - scores.max(-1, keepdims=True))
        probs /= probs.sum(-1, keepdims=True)
        heads = (probs @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = x + conv1d(heads, p["attn"]["c_proj"], D)
        h = gelu(conv1d(norm(x, p["ln_2"]), p["mlp"]["c_fc"], 4 * D))
        x = x + conv1d(h, p["mlp"]["c_proj"], D)
    return norm(x, params["ln_f"]) @ params["wte"][: config.vocab_size].T


def test_logits_are_those_of_an_independent_gpt2(tiny, noisy_params, tokens):
    model = tiny()
    params, ids = noisy_params(model), tokens(model)
    expected = numpy_gpt2(params, model.config, ids)
    logits = logits_of(model, params, ids)
    assert logits.dtype == jnp.float32 and logits.shape == (3, 16, model.config.vocab_size)
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 1e-5


def test_small_activations_show_the_epsilon_of_the_norms(tiny, noisy_params, tokens):
    # With activations of about 1e-3, an epsilon of 1e-6 would change the norm's output threefold.
    model = tiny()
    params = noisy_params(model)
    params |= {name: params[name] * 0.005 for name in ("wte", "wpe")}
    ids = tokens(model, rows=1)
    expected = numpy_gpt2(params, model.config, ids)
    error = np.abs(logits_of(model, params, ids) - expected).max() / np.abs(expected).max()
    assert error < 1e-5


def test_output_does_not_depend_on_later_inputs_by_gradient(tiny, noisy_params, tokens):
    model = tiny()
    params, ids = noisy_params(model), tokens(model, rows=1)
    direction = np.random.default_rng(2).normal(size=model.config.d_model).astype(np.float32)

    def outputs(wpe):  # the position embedding is added to one position's input alone
        return model.apply({"params": params | {"wpe": wpe}}, ids)[0][0] @ direction

    jacobian_TxTxD = jax.jit(jax.jacrev(outputs))(params["wpe"])
    depends = np.abs(jacobian_TxTxD).max(-1)
    assert (depends[np.triu_indices(16, 1)] == 0).all()
    assert (depends[np.tril_indices(16)] > 1e-6).all()


def test_a_later_token_changes_no_earlier_logit(tiny, noisy_params, tokens):
    model = tiny()
    params, ids = noisy_params(model), tokens(model, rows=1)
    others = jnp.concatenate([ids, ids.at[0, 9].set((ids[0, 9] + 1) % model.config.vocab_size)])
    one, other = np.asarray(logits_of(model, params, others))
    assert np.array_equal(one[:9], other[:9])
    assert (one[9:] != other[9:]).any(-1).all()


@pytest.mark.slow
def test_unrolling_and_remat_change_neither_loss_nor_gradients(tiny, noisy_params, tokens):
    model = tiny()
    params, ids = noisy_params(model), tokens(model)
    expected = value_and_grad(model)(params, ids)
    unrolled = value_and_grad(tiny(scanned=False))(params, ids)
    assert_trees_close(unrolled, expected, 1e-5)
    others = value_and_grad(tiny(train=True, scan_unroll=2, remat="dots"))(params, ids)
    assert_trees_close(others, expected, 1e-5)


@pytest.mark.slow
def test_remat_computes_products_again_only_where_it_should(tiny, noisy_params, tokens):
    def products(remat):
        model = tiny(remat=remat, train=True)
        jaxpr = jax.make_jaxpr(value_and_grad(model))
        return str(jaxpr(noisy_params(model), tokens(model))).count("dot_general[")

    # A block has four: of all, the last is not needed again. Attention has two more.
    assert products("dots") - products("none") == 2
    assert products("full") - products("dots") == 3


@pytest.mark.slow
def test_remat_draws_the_same_dropout_again(tiny, noisy_params, tokens):
    model = tiny(dropout=0.1, train=True)
    params, ids, key = noisy_params(model), tokens(model), jax.random.key(3)
    expected = value_and_grad(model)(params, ids, key)
    others = value_and_grad(tiny(dropout=0.1, remat="full", train=True))(params, ids, key)
    assert_trees_close(others, expected, 1e-5)
    assert value_and_grad(tiny())(params, ids)[0] != pytest.approx(float(expected[0]), rel=1e-4)


def test_the_embedding_is_one_leaf_whose_gradient_is_the_sum_of_both_uses(
    tiny, noisy_params, tokens
):
    model = tiny()
    params, ids = noisy_params(model), tokens(model)
    V = model.config.padded_vocab_size
    with_vocab = [leaf.shape for leaf in jax.tree.leaves(params) if V in leaf.shape]
    assert with_vocab == [(V, model.config.d_model)]

    def loss(table_in, table_out):
        hidden, _ = model.apply({"params": params | {"wte": table_in}}, ids[:, :-1])
        weights = jnp.ones(hidden.shape[:2])
        return weighted_cross_entropy(
            hidden, table_out, ids[:, 1:], weights, model.config.vocab_size, 0
        )

    wte = params["wte"]
    d_in, d_out = jax.jit(jax.grad(loss, argnums=(0, 1)))(wte, wte)
    total = value_and_grad(model)(params, ids)[1]["wte"]
    assert_trees_close(total, d_in + d_out, 1e-5)
    unused = np.setdiff1d(np.arange(V), np.asarray(ids[:, :-1]))
    assert (np.asarray(d_in)[unused] == 0).all() and np.abs(d_in).max() > 1e-3
    assert np.abs(np.asarray(d_out)[: model.config.vocab_size]).max(-1).min() > 1e-6


def test_padded_rows_have_no_logits_no_probability_and_no_gradient(tiny, noisy_params, tokens):
    model = tiny()
    params, ids = noisy_params(model), tokens(model)
    run = value_and_grad(model)
    loss, grads = run(params, ids)
    assert model.config.padded_vocab_size == 64 > model.config.vocab_size
    assert (np.asarray(grads["wte"])[model.config.vocab_size :] == 0).all()
    loud = params | {"wte": params["wte"].at[model.config.vocab_size :].set(50.0)}
    assert run(loud, ids)[0] == loss
    logits = logits_of(model, loud, ids)
    assert logits.shape[-1] == model.config.vocab_size
    logprobs = jax.nn.log_softmax(logits[:, :-1])
    picked = np.take_along_axis(np.asarray(logprobs), np.asarray(ids)[:, 1:, None], axis=-1)
    assert loss == pytest.approx(-picked.sum(), rel=1e-5)


def test_bfloat16_is_close_to_float32_and_its_logits_are_float32(tiny, noisy_params, tokens):
    model = tiny()
    params, ids = noisy_params(model), tokens(model)
    half = tiny(dtype="bfloat16")
    hidden = jax.eval_shape(lambda: half.apply({"params": params}, ids)[0])
    assert hidden.dtype == jnp.bfloat16
    exact, rounded = (np.asarray(logits_of(m, params, ids)) for m in (model, half))
    assert rounded.dtype == np.float32
    assert 1e-5 < np.abs(rounded - exact).max() / np.abs(exact).max() < 0.05


def test_dropout_is_off_unless_training(tiny, noisy_params, tokens):
    model = tiny(dropout=0.5)
    params, ids = noisy_params(model), tokens(model)
    assert np.array_equal(logits_of(model, params, ids), logits_of(tiny(), params, ids))


@pytest.mark.slow
def test_layers_rows_and_keys_draw_masks_of_their_own(tiny, noisy_params):
    # Blocks that add nothing but a constant each, dropped: layer l adds mask / (1 - p) * (1, 4)[l]
    # to the residual stream, so each value of it tells which masks let it through.
    model = tiny(dropout=0.5, train=True)
    params = jax.tree.map(jnp.zeros_like, noisy_params(model))
    params["h"]["mlp"]["c_proj"]["bias"] = jnp.ones((2, 32)) * jnp.asarray([[1.0], [4.0]])
    params["ln_f"]["scale"] = jnp.ones(32)  # a norm keeps how many different values a row has
    ids = jnp.zeros((2, 16), jnp.int32)
    draw = jax.jit(lambda k: model.apply({"params": params}, ids, rngs={"dropout": k})[0])

    one = np.asarray(draw(jax.random.key(0)))
    # 0, 1, 4 and 5 with masks of their own; only 0 and 5 if both layers drew the same.
    counts = [len(np.unique(row.round(4))) for row in one.reshape(-1, 32)]
    assert max(counts) == 4 and min(counts) >= 3
    assert not np.array_equal(one[0], one[1])
    assert np.array_equal(one, draw(jax.random.key(0)))
    assert not np.array_equal(one, draw(jax.random.key(1)))


def test_a_cache_is_stacked_as_the_blocks_are(tiny, noisy_params, tokens):
    model = tiny()
    params, ids = noisy_params(model), tokens(model)
    apart, stacked = (init_cache(model.config, "float32", 3, stacked=s) for s in (False, True))
    with pytest.raises(ValueError, match="stacked=True"):
        model.apply({"params": params}, ids, apart)
    with pytest.raises(ValueError, match="stacked=False"):
        tiny(scanned=False).apply({"params": unstack(params, 2)}, ids, stacked)
