"""Runs a model part by part: the embeddings, one block, and what follows the last block.

Each part is the model's own module, so that every variant of the model is computed as it trains.
All blocks are one program, compiled once for each padded length, whatever the depth.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt2_jax.model.attention import layer_scales
from gpt2_jax.model.gpt2 import GPT2, Block
from gpt2_jax.model.residual import Stream, empty_values, is_first_layer
from gpt2_jax.model.taps import EDITS, VALUES, Edit


class Embedded(NamedTuple):
    """Holds what enters the first block.

    Attributes:
      token_TxD: the rows of the embedding table.
      embedding_TxD: with positions added, if the model adds them, and muP's factor.
    """

    token_TxD: jax.Array
    embedding_TxD: jax.Array


class BlockEdits(NamedTuple):
    """Holds the edits of one block; None leaves a value as it is.

    Attributes:
      seen: of which slots each query sees, [1, 1, T, T].
      z: of the heads' outputs [1, T, H, K].
      neurons: of the MLP's activations [1, T, F].
      mlp: of the MLP's output [1, T, D].
      resid_post: of the residual stream behind the block [1, T, D].
    """

    seen: Edit | None = None
    z: Edit | None = None
    neurons: Edit | None = None
    mlp: Edit | None = None
    resid_post: Edit | None = None

    def tree(self) -> dict[str, Any]:
        """Returns the edits as `taps.tap` looks them up in a block."""
        attention = {"seen": self.seen, "z": self.z}
        mlp = {"neurons": self.neurons, "out": self.mlp}
        modules = {"attn": attention, "mlp": mlp, "resid_post": self.resid_post}
        return {
            name: {key: edit for key, edit in node.items() if edit} if type(node) is dict else node
            for name, node in modules.items()
            if node
        }


@functools.partial(jax.jit, static_argnames="model")
def embed(model: GPT2, params: Any, tokens_T: jax.Array) -> Embedded:
    """Returns the embeddings of a text; `params` needs those outside of the blocks only."""
    positions = jnp.arange(len(tokens_T))[None]
    shown: Any
    x, shown = model.apply(
        {"params": params}, tokens_T[None], positions, method=GPT2.embed, mutable=[VALUES]
    )
    return Embedded(shown[VALUES]["token"][0], x[0])


@functools.partial(jax.jit, static_argnames=("model", "wanted"))
def run_block(
    model: GPT2,
    params: Any,
    layer: jax.Array,
    stream: Stream,
    first_x_TxD: jax.Array,
    edits: BlockEdits,
    wanted: tuple[str, ...] = (),
) -> tuple[Stream, dict[str, jax.Array]]:
    """Returns (the residual stream [1, T, D] behind a block, the values that are wanted).

    Args:
      model: a module of `build_decoder`.
      params: of this block alone, `params["h_0"]` for the first.
      layer: its index, int32, which only some variants need.
      stream: the residual stream before it; `empty_stream` makes the first.
      first_x_TxD: the embeddings.
      edits: of this block.
      wanted: names of taps, such as "resid_mid" or "attn/scores".
    """
    config = model.config
    T = stream.x_BxTxD.shape[1]
    slots = jnp.arange(T)[None]
    of_layers = layer_scales(config), is_first_layer(config)
    of_layer = jax.tree.map(lambda leaf_L: leaf_L[layer], of_layers)
    first_x = first_x_TxD[None] if config.x0_residual else None
    shown: Any
    (stream, _), shown = Block(config, model.compute, train=False).apply(
        {"params": params, EDITS: edits.tree()},
        *(stream, None, slots, slots, None, first_x, of_layer),
        mutable=[VALUES],
    )
    return stream, {name: _at(shown[VALUES], name.split("/")) for name in wanted}


def _at(tree: Mapping[str, Any], path: Sequence[str]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def empty_stream(model: GPT2, embedding_TxD: jax.Array) -> Stream:
    """Returns the residual stream before the first block."""
    x = embedding_TxD[None]
    return Stream(x, empty_values(model.config, x))


@functools.partial(jax.jit, static_argnames="model")
def finish(model: GPT2, params: Any, x_NxD: jax.Array) -> jax.Array:
    """Returns hidden states [N, D] of rows of the residual stream: the final norm, muP's factor."""
    hidden: Any = model.apply({"params": params}, x_NxD[None], method=GPT2.finish)
    return hidden[0]


@functools.partial(jax.jit, static_argnames="model")
def read_out(model: GPT2, params: Any, x_NxD: jax.Array) -> jax.Array:
    """Returns float32 logits [N, V] of rows of the residual stream, behind any block.

    They are unembed(ln_f(x)), which of the last rows are the model's own logits.
    """
    return _read_out(model, params, x_NxD)


def _read_out(model: GPT2, params: Any, x_NxD: jax.Array) -> jax.Array:
    hidden: Any = model.apply({"params": params}, x_NxD[None], method=GPT2.finish)
    logits: Any = model.apply({"params": params}, hidden, method=GPT2.unembed)
    return logits[0]


class Predicted(NamedTuple):
    """Says how each token of a text was predicted by those before it; all have N rows.

    Attributes:
      logprob: of the target, in nats.
      rank: how many tokens are more probable than the target.
      entropy: of the distribution, in nats.
      top_ids, top_logprobs: the most probable tokens, [N, K], first the best.
    """

    logprob: Any
    rank: Any
    entropy: Any
    top_ids: Any
    top_logprobs: Any


@functools.partial(jax.jit, static_argnames=("model", "count"))
def predict(
    model: GPT2, params: Any, x_NxD: jax.Array, targets_N: jax.Array, count: int
) -> Predicted:
    """Returns how rows of the residual stream predict their targets.

    Args:
      model: a module of `build_decoder`.
      params: those outside of the blocks are enough.
      x_NxD: rows of the residual stream, behind any block.
      targets_N: the token that follows each row.
      count: how many of the most probable tokens are listed.
    """

    def of_row(row: tuple[jax.Array, jax.Array]) -> Predicted:
        x_D, target = row
        logprobs_V = jax.nn.log_softmax(_read_out(model, params, x_D[None])[0])
        return _predicted(logprobs_V, target, count)

    # The logits of all rows at once would take [N, V]; the table is read once for each batch.
    return jax.lax.map(of_row, (x_NxD, targets_N), batch_size=min(64, len(targets_N)))


@functools.partial(jax.jit, static_argnames=("model", "count"))
def lens(
    model: GPT2, params: Any, x_NxD: jax.Array, target: jax.Array, count: int
) -> tuple[Predicted, jax.Array]:
    """Returns how rows of one position predict its target, and KL(last row || each), [N] in nats.

    Args:
      model, params, count: as of `predict`.
      x_NxD: rows of the residual stream.
      target: the token that follows the position.
    """
    logprobs_NxV = jax.nn.log_softmax(_read_out(model, params, x_NxD))
    found = jax.vmap(lambda logprobs_V: _predicted(logprobs_V, target, count))(logprobs_NxV)
    return found, kl(logprobs_NxV[-1], logprobs_NxV)


def kl(a_NxV: jax.Array, b_NxV: jax.Array) -> jax.Array:
    """Returns KL(a || b) of log-probabilities, [N] in nats, never below zero by rounding."""
    return jnp.maximum(jnp.sum(jnp.exp(a_NxV) * (a_NxV - b_NxV), axis=-1), 0)


@functools.partial(jax.jit, static_argnames=("model_a", "model_b"))
def divergence(
    model_a: GPT2, params_a: Any, a_NxD: jax.Array, model_b: GPT2, params_b: Any, b_NxD: jax.Array
) -> jax.Array:
    """Returns KL(a || b) of the predictions of rows of two models' residual streams, [N]."""
    logits = _read_out(model_a, params_a, a_NxD), _read_out(model_b, params_b, b_NxD)
    return kl(*map(jax.nn.log_softmax, logits))


def _predicted(logprobs_V: jax.Array, target: jax.Array, count: int) -> Predicted:
    logprob = logprobs_V[target]
    best, ids = jax.lax.top_k(logprobs_V, count)
    entropy = -jnp.sum(jnp.exp(logprobs_V) * logprobs_V)
    return Predicted(logprob, jnp.sum(logprobs_V > logprob), entropy, ids, best)
