"""The pass for AdamW computes what Optax computes, and a rejected gradient changes no bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import from_dict, knobs
from gpt2_jax.errors import UserError
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.update import Gradient, adamw_update, apply_update, optax_update

_SHAPES = {"wte": (7, 4), "h": {"kernel": (2, 4, 4), "bias": (2, 4)}, "ln_f": {"scale": (4,)}}


def tree(seed, scale=1.0):
    shapes, structure = jax.tree.flatten(_SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    leaves = [scale * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
    return jax.tree.unflatten(structure, leaves)


def gradient(total, weight=32.0, accepted=True):
    squares = [jnp.sum(jnp.square(leaf / weight)) for leaf in jax.tree.leaves(total)]
    norm = jnp.sqrt(sum(squares))
    return Gradient(total, jnp.float32(weight), norm, jnp.bool_(accepted))


def config(clip=1.0, epsilon=1e-8, **compute):
    optimizer = {"grad_clip": clip, "weight_decay": 0.1, "epsilon": epsilon}
    return from_dict({"optimizer": optimizer, "compute": compute})


@pytest.mark.parametrize(
    "clip", [0.05, *(pytest.param(clip, marks=pytest.mark.slow) for clip in (0.0, 100.0))]
)
def test_ten_updates_are_those_of_optax(clip):
    optimizer = make_optimizer(config(clip))
    one_pass = jax.jit(lambda p, s, g, r: adamw_update(config(clip).optimizer, p, s, g, r))
    reference = jax.jit(lambda p, s, g, r: optax_update(optimizer, p, s, g, r))
    params = tree(0)
    ours = theirs = params, optimizer.init(params)
    for step in range(10):
        # One gradient in the middle is rejected.
        args = gradient(tree(step + 1), accepted=step != 5), jnp.float32(1e-2 * (step + 1))
        ours, theirs = one_pass(*ours, *args), reference(*theirs, *args)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=1e-7)
    counts = [leaf for leaf in jax.tree.leaves(ours[1]) if leaf.ndim == 0]
    assert [int(count) for count in counts] == [9, 9]


_SMALLEST = next(knob.low for knob in knobs() if knob.key == "optimizer.epsilon")


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("updates_before", [0, 1])
@pytest.mark.parametrize("epsilon", [1e-8, _SMALLEST])
def test_a_rejected_gradient_changes_no_bit(bad, updates_before, epsilon):
    chosen = config(epsilon=epsilon)
    optimizer = make_optimizer(chosen)
    params = tree(0)
    state = params, optimizer.init(params)
    update = jax.jit(lambda p, s, g: adamw_update(chosen.optimizer, p, s, g, jnp.float32(0.1)))
    for _ in range(updates_before):
        state = update(*state, gradient(tree(1)))
    total = tree(2)
    total["h"]["bias"] = total["h"]["bias"].at[0, 0].set(bad)
    after = update(*state, gradient(total, accepted=False))
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.slow
def test_the_smallest_epsilon_leaves_alone_what_has_no_gradient():
    chosen = config(epsilon=_SMALLEST)
    optimizer, params = make_optimizer(chosen), tree(0)
    total = tree(1)
    total["h"]["bias"] = jnp.zeros_like(total["h"]["bias"])  # which does not decay
    args = params, optimizer.init(params), gradient(total), jnp.float32(0.1)
    ours, theirs = adamw_update(chosen.optimizer, *args), optax_update(optimizer, *args)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=1e-7)
    np.testing.assert_array_equal(ours[0]["h"]["bias"], params["h"]["bias"])


def test_an_epsilon_of_zero_is_refused():
    with pytest.raises(UserError, match=r"optimizer\.epsilon must be at least 1e-30, not 0"):
        config(epsilon=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"compute": {"plain": True}}, {"optimizer": {"name": "lion"}}])
def test_plain_adamw_and_other_optimizers_are_left_to_optax(changes):
    config = from_dict(changes)
    optimizer, params = make_optimizer(config), tree(0)
    args = params, optimizer.init(params), gradient(tree(1)), jnp.float32(0.1)
    applied, expected = apply_update(config, optimizer, *args), optax_update(optimizer, *args)
    for mine, other in zip(jax.tree.leaves(applied), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(mine, other)
    adamw = from_dict({})
    one_pass = apply_update(adamw, make_optimizer(adamw), *args) if "compute" in changes else None
    if one_pass is not None:  # rounds differently, so that it can be told apart
        pairs = zip(jax.tree.leaves(one_pass), jax.tree.leaves(expected), strict=True)
        assert not all(np.array_equal(mine, other) for mine, other in pairs)
