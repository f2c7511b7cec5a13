"""Parameters and gradients drawn at random, and what updates do to them, for several tests."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import ModelConfig
from gpt2_jax.model.build import abstract_params
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context
from gpt2_jax.training import step
from gpt2_jax.training.mup import matrix_rate
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state
from gpt2_jax.training.update import Gradient, adamw_update, apply_update, optax_update

RATE = 0.01
MODEL = ModelConfig(2, 4, 32, 16, vocab_size=61, vocab_multiple=8)
KERNELS = {
    "h/attn/c_attn/kernel",
    "h/attn/c_proj/kernel",
    "h/mlp/c_fc/kernel",
    "h/mlp/c_proj/kernel",
}

shapes_of = functools.cache(abstract_params)


def named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def drawn(seed, model=MODEL, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = shapes_of(model)
    return jax.tree.map(lambda leaf: np.float32(scale * rng.normal(size=leaf.shape)), shapes)


def gradient(total, accepted=True):
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(total)))
    return Gradient(total, jnp.float32(1), norm, jnp.bool_(accepted))


def moves(config, gradients, params):
    """How far each parameter moves with some gradients."""
    optimizer = make_optimizer(config)
    update = jax.jit(lambda *args: apply_update(config, optimizer, *args, jnp.float32(RATE)))
    state = params, optimizer.init(params)
    for each in gradients:
        state = update(*state, gradient(each))
    return named(jax.tree.map(lambda new, old: np.asarray(new - old), state[0], params))


def check_ten_updates(config):
    """Compares the update in one pass with that of optax, ten times."""
    optimizer, factor = make_optimizer(config), matrix_rate(config)
    one_pass = jax.jit(lambda *args: adamw_update(config.optimizer, *args, factor))
    reference = jax.jit(lambda *args: optax_update(optimizer, *args))
    params = drawn(0, config.model)
    ours = theirs = params, optimizer.init(params)
    for n in range(10):
        # One gradient in the middle is rejected.
        args = gradient(drawn(n + 1, config.model), n != 5), jnp.float32(1e-2 * (n + 1))
        ours, theirs = one_pass(*ours, *args), reference(*theirs, *args)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-7)


def lowered(config):
    """The training step of a config as text, before it is compiled."""
    mesh, rules, optimizer = (
        make_mesh(config.mesh, jax.devices()[:1]),
        Rules(),
        make_optimizer(config),
    )
    abstract = abstract_state(config, optimizer, mesh, rules)
    with sharding_context(mesh, rules):
        batch = step.abstract_batch(8, 16, mesh)
        numbers = step.step_numbers(config, mesh)
        program = jax.jit(step._train_step(config, optimizer))
        return program.lower(abstract, batch, numbers).as_text()
