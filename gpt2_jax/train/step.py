"""A training step and an evaluation step: pure functions of (state, batch) on a mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.data.loader import Batch
from gpt2_jax.model.gpt2 import GPT2, output_table
from gpt2_jax.model.loss import weighted_cross_entropy
from gpt2_jax.parallel.mesh import BATCH_AXES
from gpt2_jax.parallel.rules import Rules, entered
from gpt2_jax.train.guard import judge
from gpt2_jax.train.optimizer import make_schedule, updates_made
from gpt2_jax.train.state import TrainState

Metrics = dict[str, Any]


def compile_train_step(
    config: Config,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    rules: Rules,
    abstract: TrainState,
    more_options: Mapping[str, str] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The compiled step: (state, batch) -> (next state, metrics). The state's buffers are donated.

    Metrics are device scalars: `loss` (nats per weighted token), `grad_norm` (before clipping),
    `learning_rate`, `bad_steps` (not finite, in a row), `loss_limit` (the update of a loss above it
    was skipped; None where none is set); and `grad_norms`, by parameter, [L] for stacked ones.

    Args:
      abstract: shapes and shardings of the state.
      more_options: for XLA, beside what `compiler_options` gives it.
    """
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    jitted = jax.jit(
        _train_step(config, optimizer),
        out_shardings=(state_shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
    )
    # Constraints in the model mean nothing unless mesh and rules are in force while it is traced.
    with entered(mesh, rules):
        batch = abstract_batch(
            config.train.batch_size,
            config.model.context_length,
            mesh,
            segments=config.data.isolate_documents,
        )
        options = compiler_options(mesh) | dict(more_options or {})
        return jitted.lower(abstract, batch).compile(options)


def compile_eval_step(
    config: ModelConfig,
    batch_size: int,
    mesh: Mesh,
    rules: Rules,
    abstract_params: Any,
    *,
    segments: bool = False,
) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array]]:
    """The compiled evaluation: (params, batch) -> (sum of weighted nats, sum of weights).

    Args:
      segments: whether batches have them.
    """
    model = GPT2(config)

    def eval_step(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return _weighted_loss(model, params, batch, None), batch.weights.sum()

    jitted = jax.jit(eval_step, out_shardings=NamedSharding(mesh, PartitionSpec()))
    with entered(mesh, rules):
        batch = abstract_batch(batch_size, config.context_length, mesh, segments=segments)
        return jitted.lower(abstract_params, batch).compile(compiler_options(mesh))


def compiler_options(mesh: Mesh) -> dict[str, str | bool]:
    """What XLA needs to be told for the mesh's devices, beyond its defaults."""
    if mesh.devices.flat[0].platform != "tpu":
        return {}
    # A windowed product passes activations or weights around a ring of permutes, piece by piece,
    # where FSDP gathers the weights once; for 124M on 16 chips it moves twice as much.
    return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How a [B, T] array of the batch lies on the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def abstract_batch(
    batch_size: int, context_length: int, mesh: Mesh, *, segments: bool = False
) -> Batch:
    """Shapes and shardings of a batch."""
    shape, sharding = (batch_size, context_length), batch_sharding(mesh)
    ids = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding)
    weights = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
    return Batch(ids, ids, weights, ids if segments else None)


def norms_by_name(norms: Mapping[str, Any]) -> dict[str, float]:
    """{`name` or `name/layer`: norm} from the scalars and [L] arrays of a step's `grad_norms`."""
    named: dict[str, float] = {}
    for name, value in norms.items():
        array = np.asarray(value)
        if array.ndim == 0:
            named[name] = float(array)
        else:
            named |= {f"{name.removeprefix('h/')}/{i}": float(x) for i, x in enumerate(array)}
    return named


def _train_step(
    config: Config, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    model = GPT2(config.model, train=True)
    schedule = make_schedule(config.schedule, config.train.total_steps)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        # Dropout depends on (seed, step) alone, so that a resumed run draws the same masks.
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        loss_sum, grad_sum = _accumulated_gradient(
            model, state.params, batch, key, config.train.accumulation_steps
        )
        weight = batch.weights.sum()
        total_weight = jnp.where(weight > 0, weight, 1.0)  # no targets: no loss and no gradient
        loss = loss_sum / total_weight
        grads = jax.tree.map(lambda leaf: leaf / total_weight, grad_sum)

        squares = _squares_by_layer(grads)
        grad_norm = jnp.sqrt(sum(jnp.sum(leaf) for leaf in squares.values()))
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        accepted, loss_window, loss_limit = judge(config.train, state.loss_window, loss, finite)

        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        def if_accepted(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(accepted, new, old)

        next_state = TrainState(
            step=state.step + 1,
            params=jax.tree.map(if_accepted, params, state.params),
            opt_state=jax.tree.map(if_accepted, opt_state, state.opt_state),
            bad_steps=jnp.where(finite, 0, state.bad_steps + 1),
            loss_window=loss_window,
        )
        metrics = {
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": schedule(updates_made(state.opt_state)),
            "bad_steps": next_state.bad_steps,
            "loss_limit": loss_limit,
            "grad_norms": {name: jnp.sqrt(leaf) for name, leaf in squares.items()},
        }
        return next_state, metrics

    return train_step


def _accumulated_gradient(
    model: GPT2, params: Any, batch: Batch, key: jax.Array, steps: int
) -> tuple[jax.Array, Any]:
    """(weighted nats, their gradient), summed over microbatches: the caller divides by weight."""
    gradient = jax.value_and_grad(_weighted_loss, argnums=1)
    if steps == 1:
        return gradient(model, params, batch, key)

    def one(carry: Any, i: jax.Array) -> tuple[Any, None]:
        # Microbatch i takes every steps-th row: each device then reads its own rows and none moves.
        micro = jax.tree.map(lambda x: x.reshape(-1, steps, *x.shape[1:])[:, i], batch)
        value = gradient(model, params, micro, jax.random.fold_in(key, i))
        return jax.tree.map(jnp.add, carry, value), None

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(one, zeros, jnp.arange(steps))
    return total


def _weighted_loss(model: GPT2, params: Any, batch: Batch, key: jax.Array | None) -> jax.Array:
    rngs = {"dropout": key} if key is not None else None
    hidden, _ = model.apply({"params": params}, batch.inputs, None, batch.segments, rngs=rngs)
    config = model.config
    return weighted_cross_entropy(
        hidden,
        output_table(params),
        batch.targets,
        batch.weights,
        config.vocab_size,
        config.loss_chunk,
    )


def _squares_by_layer(grads: Any) -> dict[str, jax.Array]:
    """Sums of squares by parameter name: [L] for the stacked ones of the blocks, else scalars."""
    squares = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes = tuple(range(1, leaf.ndim)) if name.startswith("h/") else None
        squares[name] = jnp.sum(jnp.square(leaf), axis=axes)
    return squares
