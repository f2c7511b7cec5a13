"""Takes one training step on a text, of a copy: all predictions at once, before and after."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpt2_jax.config import Config, ModelConfig, OptimizerConfig
from gpt2_jax.errors import UserError
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.interpret.stream import TOP, predicted
from gpt2_jax.interpret.text import listed, pieces
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.loss import weighted_cross_entropy
from gpt2_jax.model.params import output_table, stack, unstack
from gpt2_jax.training.optimizer import make_optimizer


def _sgd(config: ModelConfig, gradient: Any, params: Any, rate: Any) -> Any:
    del config, params
    return jax.tree.map(lambda leaf: -rate * leaf, gradient)


def _adamw(config: ModelConfig, gradient: Any, params: Any, rate: Any) -> Any:
    """Returns the first update of fresh moments, in which all entries are about as large."""
    constants = OptimizerConfig(name="adamw", weight_decay=0.0, grad_clip=0.0)
    optimizer = make_optimizer(Config(model=config, optimizer=constants))
    return optimizer.update(gradient, optimizer.init(params), params, learning_rate=rate)[0]


OPTIMIZERS: dict[str, Callable[[ModelConfig, Any, Any, Any], Any]] = {"sgd": _sgd, "adamw": _adamw}
"""Name -> (config, gradient, parameters, learning rate) -> what is added to the parameters."""


def training_step(
    subject: Subject, tokens: Sequence[int], optimizer: str, learning_rate: float
) -> dict[str, Any]:
    """Returns what one step on a text changes, for JSON; the model itself stays as it is.

    Each token but the last is asked for the next one, its label, all in one pass. `predictions` has
    {token, label, loss, probability, loss_after, probability_after} of each; `loss` and
    `loss_after` are their means, in nats; `gradient_norm` is that of the mean; `next` and
    `next_after` list [id, text, probability] behind the last token. Nothing is clipped or decays.

    Raises:
      UserError: for fewer than two tokens, too many of them, an unknown optimizer, or a learning
        rate that is no positive number.
    """
    if optimizer not in OPTIMIZERS:
        raise UserError(f"optimizer must be {' or '.join(OPTIMIZERS)}, not {optimizer!r:.40}")
    if not 0 < learning_rate < 1e6:
        raise UserError(f"learning_rate must be positive and below 1e6, not {learning_rate}")
    if not 2 <= len(tokens) <= subject.longest:
        raise UserError(
            f"a training step needs 2 to {subject.longest} tokens, and the text has {len(tokens)}"
        )
    before = Run(subject, tokens)
    weights = np.arange(len(before.padded(tokens))) < len(tokens) - 1
    params, norm = _updated(
        subject.model,
        optimizer,
        subject.params,
        before.padded(tokens),
        weights.astype(np.float32),
        np.float32(learning_rate),
    )
    config = Config(model=subject.config, compute=subject.model.compute)
    after = Run(Subject(config, params, subject.tokenizer), tokens)
    return {
        **_told(before, after),
        "gradient_norm": float(norm),
        "optimizer": optimizer,
        "learning_rate": learning_rate,
    }


def _told(before: Run, after: Run) -> dict[str, Any]:
    found = [predicted(run, row=-1, count=TOP) for run in (before, after)]
    tokenizer = before.subject.tokenizer
    texts = [piece.text for piece in pieces(tokenizer, before.tokens)]
    losses = [-each.logprob[:-1].astype(np.float64) for each in found]
    predictions = [
        {
            "token": texts[t],
            "label": texts[t + 1],
            "loss": float(loss),
            "probability": float(np.exp(-loss)),
            "loss_after": float(loss_after),
            "probability_after": float(np.exp(-loss_after)),
        }
        for t, (loss, loss_after) in enumerate(zip(*losses, strict=True))
    ]
    following = [listed(tokenizer, each.top_ids[-1], each.top_logprobs[-1]) for each in found]
    return {
        "predictions": predictions,
        "loss": float(losses[0].mean()),
        "loss_after": float(losses[1].mean()),
        "next": following[0],
        "next_after": following[1],
    }


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def _updated(
    model: GPT2, optimizer: str, params: Any, tokens_T: jax.Array, weights_T: jax.Array, rate: Any
) -> tuple[Any, jax.Array]:
    """Returns (the parameters after one update, the norm of the gradient of the mean loss)."""
    config, compute = model.config, model.compute
    scanned = model.clone(scanned=True)  # which compiles in the same time whatever the depth
    stacked = stack(params, config.num_layers)

    def loss(params: Any) -> jax.Array:
        hidden: Any
        hidden, _ = scanned.apply({"params": params}, tokens_T[None])
        total: Any = weighted_cross_entropy(
            hidden,
            output_table(params),
            jnp.roll(tokens_T, -1)[None],
            weights_T[None],
            config.vocab_size,
            None,
            compute.matmul_precision,
            config.logit_softcap,
        )
        return total / weights_T.sum()

    gradient: Any = jax.grad(loss)(stacked)
    updates = OPTIMIZERS[optimizer](config, gradient, stacked, rate)
    updated: Any = optax.apply_updates(stacked, updates)
    return unstack(updated, config.num_layers), optax.tree.norm(gradient)
