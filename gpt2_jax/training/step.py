"""The training step and the evaluation step: pure functions of their arguments on a mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gpt2_jax.config import Config
from gpt2_jax.data.batch import Batch
from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.model.build import build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.lengths import at_length, params_at_length
from gpt2_jax.model.loss import nats_by_position, plain_cross_entropy, weighted_cross_entropy
from gpt2_jax.model.params import output_table
from gpt2_jax.model.trainable import joined, split, trained_names
from gpt2_jax.parallel.compiler_options import compiler_options
from gpt2_jax.parallel.mesh import BATCH_AXES
from gpt2_jax.parallel.rules import Rules, sharding_context
from gpt2_jax.training.gradient_norms import squares_by_layer
from gpt2_jax.training.guard import judge
from gpt2_jax.training.optimizer import (
    ScheduleNumbers,
    learning_rate,
    schedule_numbers,
    updates_made,
)
from gpt2_jax.training.state import TrainState
from gpt2_jax.training.update import Gradient, apply_update, updated_average

Metrics = dict[str, Any]


class StepNumbers(NamedTuple):
    """Holds what a run sets and its step takes as arguments, so that runs share one program.

    Attributes:
      dropout_key: the data of the key that dropout draws from, uint32.
      schedule: the numbers of the learning rate.
    """

    dropout_key: Any
    schedule: ScheduleNumbers


def step_numbers(config: Config, mesh: Mesh) -> StepNumbers:
    """Returns the numbers of a run, on every device of the mesh."""
    key = jax.random.key(config.train.seeds.dropout, impl=config.compute.prng)
    numbers = StepNumbers(
        np.asarray(jax.random.key_data(key)),
        schedule_numbers(config.schedule, config.train.total_steps),
    )
    return jax.tree.map(lambda number: _replicated(np.asarray(number), mesh), numbers)


def _replicated(array: np.ndarray, mesh: Mesh) -> jax.Array:
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def _abstract_numbers(config: Config, mesh: Mesh) -> StepNumbers:
    """Returns the numbers as ShapeDtypeStructs; the devices of the mesh need not exist."""
    key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=config.compute.prng)))
    schedule = schedule_numbers(config.schedule, config.train.total_steps)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, PartitionSpec())
        ),
        StepNumbers(key, schedule),
    )


def compile_train_step(
    config: Config,
    optimizer: optax.GradientTransformationExtraArgs,
    mesh: Mesh,
    rules: Rules,
    abstract: TrainState,
    *,
    weighted: bool = False,
    segmented: bool | None = None,
    more_options: Mapping[str, str] | None = None,
) -> Callable[[TrainState, Batch, StepNumbers], tuple[TrainState, Metrics]]:
    """Compiles the step: (state, batch, numbers) -> (next state, metrics).

    The state's buffers are donated. Of the config, the program does not depend on the seeds,
    `train.total_steps` and the numbers of `schedule`, which are in `step_numbers`.

    The metrics are scalars on the device: `loss` (nats per weighted token), `grad_norm` (before
    clipping), `learning_rate`, `bad_steps` (steps in a row that were not finite) and `loss_limit`
    (the largest loss whose update is applied; None without `train.spike_threshold`). `grad_norms`
    holds the gradient norms by parameter: [L] for stacked layers, and scalars otherwise.

    Args:
      abstract: shapes and shardings of the state.
      weighted: whether the batches have weights.
      segmented: whether they have segments; by default as `data.isolate_documents` says.
      more_options: options of XLA, in addition to those of `compiler_options`.
    """
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    jitted = jax.jit(
        _train_step(config, optimizer),
        out_shardings=(state_shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
    )
    # Sharding constraints in the model need the mesh and the rules while it is traced.
    with sharding_context(mesh, rules):
        batch = abstract_batch(
            config.train.batch_size,
            config.model.context_length,
            mesh,
            weighted=weighted,
            segmented=config.data.isolate_documents if segmented is None else segmented,
        )
        options = compiler_options(mesh, config.model) | dict(more_options or {})
        numbers = _abstract_numbers(config, mesh)
        return jitted.lower(abstract, batch, numbers).compile(options)


def compile_eval_step(
    config: Config,
    batch_size: int,
    mesh: Mesh,
    rules: Rules,
    abstract_params: Any,
    context_length: int | None = None,
    *,
    segmented: bool | None = None,
) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array]]:
    """Compiles the evaluation step: (params, batch) -> (weighted nats, weights).

    Both are sums over the batch at each position of the row, float32 [T].

    Args:
      config: of the run.
      batch_size: rows of a batch.
      mesh, rules: how arrays are sharded.
      abstract_params: ShapeDtypeStructs with the shardings of the parameters.
      context_length: tokens of a row; by default the model's context.
      segmented: see `compile_train_step`.

    Raises:
      UserError: for more tokens than the model can compute.
    """
    length = context_length or config.model.context_length
    model_config, compute = at_length(config.model, length), config.compute
    if compute.loss_chunk and length % min(compute.loss_chunk, length):
        compute = dataclasses.replace(compute, loss_chunk=None)  # which is set for another length
    model = build_model(model_config, compute)
    if segmented is None:
        segmented = config.data.isolate_documents

    def eval_step(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        params = params_at_length(config.model, params, length)
        nats_T = weighted_loss(model, params, batch, cross_entropy=nats_by_position)
        return nats_T, _weights(batch).sum(0)

    jitted = jax.jit(eval_step, out_shardings=NamedSharding(mesh, PartitionSpec()))
    with sharding_context(mesh, rules):
        batch = abstract_batch(batch_size, length, mesh, weighted=True, segmented=segmented)
        return jitted.lower(abstract_params, batch).compile(compiler_options(mesh, model_config))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the arrays of a batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def abstract_batch(
    batch_size: int,
    context_length: int,
    mesh: Mesh,
    *,
    weighted: bool = False,
    segmented: bool = False,
) -> Batch:
    """Returns a batch of ShapeDtypeStructs with shardings."""
    sharding = batch_sharding(mesh)

    def array(length: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, length), dtype, sharding=sharding)

    return Batch(
        array(context_length + 1, TOKEN_DTYPE),
        array(context_length, jnp.float32) if weighted else None,
        array(context_length, jnp.int32) if segmented else None,
    )


def _train_step(
    config: Config, optimizer: optax.GradientTransformationExtraArgs
) -> Callable[[TrainState, Batch, StepNumbers], tuple[TrainState, Metrics]]:
    model = build_model(config.model, config.compute, train=True)

    def train_step(
        state: TrainState, batch: Batch, numbers: StepNumbers
    ) -> tuple[TrainState, Metrics]:
        # Dropout depends only on (seed, step), so that a resumed run draws the same masks.
        seed = jax.random.wrap_key_data(numbers.dropout_key, impl=config.compute.prng)
        key = jax.random.fold_in(seed, state.step)
        trained, frozen = split(state.params, trained_names(config, state.params))
        loss_sum, grad_sum = _accumulated_gradient(
            model, trained, frozen, batch, key, config.train.accumulation_steps
        )
        weight = _weights(batch).sum()
        total_weight = jnp.where(weight > 0, weight, 1.0)  # no targets: no loss and no gradient
        loss = loss_sum / total_weight
        squares = squares_by_layer(grad_sum)
        grad_norm = jnp.sqrt(sum(jnp.sum(leaf) for leaf in squares.values())) / total_weight
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        accepted, loss_window, loss_limit = judge(config.train, state.loss_window, loss, finite)

        count = updates_made(state.opt_state)
        rate = learning_rate(config.schedule, numbers.schedule, count)
        gradient = Gradient(grad_sum, total_weight, grad_norm, accepted)
        trained, opt_state = apply_update(
            config, optimizer, trained, state.opt_state, gradient, rate
        )
        next_state = TrainState(
            step=state.step + 1,
            params=joined(trained, frozen),
            opt_state=opt_state,
            bad_steps=jnp.where(finite, 0, state.bad_steps + 1),
            loss_window=loss_window,
            ema=state.ema,
        )
        if state.ema is not None:
            decay, updates = config.optimizer.ema_decay, updates_made(opt_state)
            ema = updated_average(decay, state.ema, trained, updates, accepted)
            next_state = next_state._replace(ema=ema)
        metrics = {
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": rate,
            "bad_steps": next_state.bad_steps,
            "loss_limit": loss_limit,
            "grad_norms": {name: jnp.sqrt(leaf) / total_weight for name, leaf in squares.items()},
        }
        return next_state, metrics

    return train_step


def _accumulated_gradient(
    model: GPT2, trained: Any, frozen: Any, batch: Batch, key: jax.Array, steps: int
) -> tuple[jax.Array, Any]:
    """Returns (weighted nats, their gradient), summed over microbatches and not yet divided."""

    @jax.value_and_grad
    def gradient(trained: Any, batch: Batch, key: jax.Array) -> jax.Array:
        return weighted_loss(model, joined(trained, frozen), batch, key)

    if steps == 1:
        return gradient(trained, batch, key)

    def add_microbatch(carry: Any, i: jax.Array) -> tuple[Any, None]:
        # Microbatch i takes every steps-th row, so that each device keeps its rows and none move.
        micro = jax.tree.map(lambda x: x.reshape(-1, steps, *x.shape[1:])[:, i], batch)
        value = gradient(trained, micro, jax.random.fold_in(key, i))
        return jax.tree.map(jnp.add, carry, value), None

    zeros = (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, trained))
    total, _ = jax.lax.scan(add_microbatch, zeros, jnp.arange(steps))
    return total


def weighted_loss(
    model: GPT2,
    params: Any,
    batch: Batch,
    key: jax.Array | None = None,
    cross_entropy: Callable[..., Any] | None = None,
) -> Any:
    """Returns the sum over targets of weight * nats, which a step differentiates by `params`.

    Args:
      model: the module; in training one with `train=True`.
      params: its parameters.
      batch: sequences, with weights and documents if it has them.
      key: what dropout draws from; not needed without dropout.
      cross_entropy: a function with the arguments of `loss.weighted_cross_entropy`, whose result is
        returned in place of the sum.
    """
    rngs = {"dropout": key} if key is not None else None
    hidden, _ = model.apply({"params": params}, batch.inputs, None, batch.segments, rngs=rngs)
    of_training = plain_cross_entropy if model.compute.plain else weighted_cross_entropy
    return (cross_entropy or of_training)(
        hidden,
        output_table(params),
        batch.targets,
        _weights(batch),
        model.config.vocab_size,
        model.compute.loss_chunk,
        model.compute.matmul_precision,
        model.config.logit_softcap,
    )


def _weights(batch: Batch) -> jax.Array:
    """Returns how much each target counts, float32 [B, T]."""
    if batch.weights is not None:
        return batch.weights
    return jnp.ones(batch.targets.shape, jnp.float32)
