"""Takes one training step on a text, of a copy: all predictions at once, before and after."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpt2_jax.errors import UserError
from gpt2_jax.interpret.run import Subject, padded_length
from gpt2_jax.interpret.text import pieces
from gpt2_jax.model.gpt2 import GPT2

OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    # Of fresh moments, so that the step of each parameter has the length of the learning rate.
    "adamw": functools.partial(optax.adamw, b1=0.9, b2=0.95, weight_decay=0.0),
}
"""Name -> learning rate -> the optimizer whose first step is taken."""
_TOP = 10


class _Step(NamedTuple):
    losses_T: Any
    gradient_norm: Any
    after_T: Any
    top: tuple[Any, Any]
    top_after: tuple[Any, Any]


def training_step(
    subject: Subject, tokens: Sequence[int], optimizer: str, learning_rate: float
) -> dict[str, Any]:
    """Returns what one step on a text changes, for JSON; the model itself stays as it is.

    Each token but the last is asked for the next one, its label, all in one pass. `predictions` has
    {token, label, loss, probability, loss_after, probability_after} of each; `loss` and
    `loss_after` are their means, in nats; `next` and `next_after` list [id, text, probability]
    behind the last token.

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
    padded = np.zeros(padded_length(len(tokens), subject.config), np.int32)
    padded[: len(tokens)] = tokens
    step = _step(subject.model, optimizer, subject.params, padded, len(tokens), learning_rate)
    step = jax.tree.map(np.asarray, step)
    texts = [piece.text for piece in pieces(subject.tokenizer, tokens)]
    predictions = [
        {
            "token": texts[t],
            "label": texts[t + 1],
            "loss": float(before),
            "probability": float(np.exp(-before)),
            "loss_after": float(after),
            "probability_after": float(np.exp(-after)),
        }
        for t, (before, after) in enumerate(
            zip(step.losses_T[: len(tokens) - 1], step.after_T[: len(tokens) - 1], strict=True)
        )
    ]
    return {
        "predictions": predictions,
        "loss": float(np.mean([entry["loss"] for entry in predictions])),
        "loss_after": float(np.mean([entry["loss_after"] for entry in predictions])),
        "gradient_norm": float(step.gradient_norm),
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "next": _listed(subject, *step.top),
        "next_after": _listed(subject, *step.top_after),
    }


def _listed(subject: Subject, ids: np.ndarray, probs: np.ndarray) -> list[list[Any]]:
    return [
        [token, pieces(subject.tokenizer, [token])[0].text, prob]
        for token, prob in zip(ids.tolist(), probs.tolist(), strict=True)
    ]


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def _step(
    model: GPT2, optimizer: str, params: Any, tokens_T: jax.Array, length: Any, rate: Any
) -> _Step:
    """Returns losses of all positions, of which those from `length` - 1 on mean nothing."""
    labels_T = jnp.roll(tokens_T, -1)
    counts_T = jnp.arange(len(tokens_T)) < length - 1

    def losses(params: Any) -> tuple[jax.Array, tuple[jax.Array, tuple[Any, Any]]]:
        logits: Any
        logits, _ = model.apply({"params": params}, tokens_T[None], method=GPT2.logits)
        losses_T = optax.softmax_cross_entropy_with_integer_labels(logits[0], labels_T)
        probs_V = jax.nn.softmax(logits[0, length - 1])
        best, ids = jax.lax.top_k(probs_V, min(_TOP, len(probs_V)))
        return jnp.sum(losses_T * counts_T) / (length - 1), (losses_T, (ids, best))

    (_, (losses_T, top)), gradient = jax.value_and_grad(losses, has_aux=True)(params)
    transform = OPTIMIZERS[optimizer](rate)
    updates, _ = transform.update(gradient, transform.init(params), params)
    _, (after_T, top_after) = losses(optax.apply_updates(params, updates))
    return _Step(losses_T, optax.global_norm(gradient), after_T, top, top_after)
