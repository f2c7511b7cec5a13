"""Computes log-likelihoods of continuations in batches, for all evaluations.

Continuations of one context share its computation: the context goes through the model once, into a
KV cache, and the continuations start from copies of it. Only positions that predict a target get
logits.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gpt2_jax.config import ComputeConfig, MeshConfig, ModelConfig
from gpt2_jax.inference import batching
from gpt2_jax.inference.batching import Budget, Piece, Request, Shape
from gpt2_jax.inference.generate import encode_prompt
from gpt2_jax.model.build import build_decoder
from gpt2_jax.model.cache import KVCache, bytes_per_slot, init_cache
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.params import cast as cast_params
from gpt2_jax.parallel.mesh import BATCH_AXES, batch_shards, make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context
from gpt2_jax.tokenizers.tokenizer import Tokenizer

# Tokens of a batch, padding included: enough to keep the chip busy, and few enough to fit.
_TOKENS_PER_BATCH = {"cpu": 4096, "gpu": 65536, "tpu": 65536}
_CACHE_BYTES = 2**32  # the most bytes of KV cache on each device
_LOGIT_ROWS = 256  # positions whose logits exist at a time; more do not fit the processor's caches


class Likelihood(NamedTuple):
    """Holds the probabilities that a model gives a continuation.

    Attributes:
      logprobs: log-probability of each token given those before it, in nats, float32 [n].
      greedy: whether each token is the most probable one, bool [n].
      allowed: whether each is the most probable of the tokens that are not excluded, bool [n].
    """

    logprobs: np.ndarray
    greedy: np.ndarray
    allowed: np.ndarray

    @property
    def total(self) -> float:
        """Returns the log-probability of the whole continuation, in nats."""
        return float(self.logprobs.sum(dtype=np.float64))


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[Any, Any]:
    """Returns the token ids of a context and of its continuation, encoded as one text.

    They are split where the tokens of the context alone end. Spaces at the end of the context count
    as part of the continuation, because tokens begin with them; an empty context becomes the
    end-of-text token (lm-eval's convention).
    """
    end = len(context.rstrip())
    context, continuation = context[:end], context[end:] + continuation
    if not context:
        return tuple(encode_prompt(tokenizer, "")), tuple(tokenizer.encode(continuation))
    whole, first = tokenizer.encode(context + continuation), tokenizer.encode(context)
    return tuple(first), tuple(whole[len(first) :])


def windows(tokens: Sequence[int], first: int, context_length: int, stride: int) -> list[Request]:
    """Returns requests that score every token of a text once, with as much context as fits.

    Args:
      tokens: token ids of the whole text, all of which are scored.
      first: the token that precedes the text.
      context_length: the model's context.
      stride: tokens scored per window; `context_length` for windows that do not overlap.

    Returns:
      The first window scores `context_length` tokens, each further one `stride`, and the last the
      rest, with a full context.
    """
    requests = []
    text = (first, *tokens)
    start = 1  # of the tokens that are not scored yet
    while start < len(text):
        size = context_length if start == 1 else stride
        end = min(start + size, len(text))
        # Inputs are text[begin : end - 1], at most the context.
        begin = max(0, end - 1 - context_length)
        requests.append(Request(text[begin:start], (text[start:end],)))
        start = end
    return requests


class Scorer:
    """Scores requests with one model; each device of a mesh takes its part of every batch."""

    def __init__(
        self,
        params: Mapping[str, Any],
        config: ModelConfig,
        compute: ComputeConfig,
        *,
        mesh: Mesh | None = None,
        rules: Rules | None = None,
        tokens_per_batch: int | None = None,
    ) -> None:
        """Prepares a model for scoring.

        Args:
          params: scanned parameters, as `load` reads them.
          config: the model's config.
          compute: dtype and precision to score with.
          mesh: the mesh on which training has the parameters; all its processes must score the same
            requests. By default, the local devices each get the whole model.
          rules: how the model is sharded over the mesh; by default, as in training.
          tokens_per_batch: tokens of a batch; by default, chosen by the kind of device.
        """
        self.config = config
        self._model = build_decoder(config, compute, scanned=True)
        self._params = cast_params(params, compute.dtype)
        if mesh is None:
            mesh = make_mesh(MeshConfig(), jax.local_devices())
            self._params = jax.device_put(self._params, NamedSharding(mesh, PartitionSpec()))
        self._mesh, self._rules, shards = mesh, rules or Rules(), batch_shards(mesh)
        default = _TOKENS_PER_BATCH.get(mesh.devices.flat[0].platform, 4096) * shards
        slots = _CACHE_BYTES // bytes_per_slot(config, compute.dtype) * shards
        self._budget = Budget(tokens_per_batch or default, slots, shards)

    def score(
        self, requests: Sequence[Request], excluded: Sequence[int] = ()
    ) -> Iterator[tuple[int, list[Likelihood]]]:
        """Yields (index of a request, a Likelihood per continuation), longest requests first.

        Args:
          requests: what to score.
          excluded: ids of tokens that do not count for `Likelihood.allowed`.

        Raises:
          UserError: for a continuation longer than the context.
        """
        pieces = [*batching.split_requests(requests, self.config.context_length)]
        unfinished: dict[int, list[Likelihood | None]] = {}
        pending: tuple[list[Piece], Any] | None = None
        banned_V = np.isin(np.arange(self.config.vocab_size), excluded)
        for shape, rows, batch in batching.make_batches(pieces, self._budget):
            # The results of a batch are read while the next one computes.
            started = batch, self._start(shape, rows, batch, banned_V if excluded else None)
            if pending is not None:
                yield from self._finish(*pending, requests, unfinished)
            pending = started
        if pending is not None:
            yield from self._finish(*pending, requests, unfinished)

    def _start(
        self, shape: Shape, rows: int, batch: list[Piece], banned_V: np.ndarray | None
    ) -> Any:
        prefixes = np.zeros((rows, shape.prefix), np.int32)
        lengths = np.zeros(rows, np.int32)
        chunks = np.zeros((rows, shape.fan, shape.chunk), np.int32)
        targets = np.zeros_like(chunks)
        for row, piece in enumerate(batch):
            # The last token of the context predicts the first of each continuation.
            *prefix, last = piece.context
            prefixes[row, : len(prefix)] = prefix
            lengths[row] = len(prefix)
            for number, continuation in enumerate(piece.continuations):
                chunks[row, number, : len(continuation)] = (last, *continuation)[:-1]
                targets[row, number, : len(continuation)] = continuation
        sharding = NamedSharding(self._mesh, PartitionSpec(BATCH_AXES))
        arrays = [
            jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
            for array in (prefixes, lengths, chunks, targets)
        ]
        with sharding_context(self._mesh, self._rules):
            return _likelihoods(self._model, self._params, self._rules, *arrays, banned_V)

    def _finish(
        self,
        batch: list[Piece],
        result: Any,
        requests: Sequence[Request],
        unfinished: dict[int, list[Likelihood | None]],
    ) -> Iterator[tuple[int, list[Likelihood]]]:
        arrays = [np.asarray(array) for array in result]
        complete = []
        for row, piece in enumerate(batch):
            count = len(requests[piece.index].continuations)
            likelihoods = unfinished.setdefault(piece.index, [None] * count)
            for i, number in enumerate(piece.numbers):
                size = len(piece.continuations[i])
                likelihoods[number] = Likelihood(*(array[row, i, :size] for array in arrays))
            if None not in likelihoods:
                complete.append(piece.index)
        for index in complete:
            yield index, cast(list[Likelihood], unfinished.pop(index))


@functools.partial(jax.jit, static_argnames=("model", "rules"))
def _likelihoods(
    model: GPT2,
    params: Any,
    rules: Rules,
    prefixes_BxP: jax.Array,
    lengths_B: jax.Array,
    chunks_BxGxE: jax.Array,
    targets_BxGxE: jax.Array,
    banned_V: jax.Array | None,
) -> tuple[jax.Array, ...]:
    """Returns the arrays of a Likelihood for every target, [B, G, E], replicated on every device.

    G counts continuations of a request, E tokens of a continuation, P tokens of a prefix, R = B G
    rows that continue, and C positions whose logits exist at a time.
    """
    del rules  # in force at the caller; an argument here so that other rules compile again
    B, G, E = chunks_BxGxE.shape
    P = prefixes_BxP.shape[1]
    chunks_RxE = chunks_BxGxE.reshape(B * G, E)
    if P == 0:
        hidden, _ = model.apply({"params": params}, chunks_RxE)
    else:
        # Padding may lie beyond the last position, where it is masked and never a target.
        room = dataclasses.replace(model.config, context_length=P + E)
        empty: Any = init_cache(room, model.compute.dtype, B, stacked=True)
        filled: Any = model.apply({"params": params}, prefixes_BxP, empty)[1]
        keys_and_values = jax.tree.map(
            lambda x_LxBxHxSxK: jnp.repeat(x_LxBxHxSxK, G, axis=1), filled.layers
        )
        # These lengths mask the padding that prefixes have left in further slots.
        cache = KVCache(keys_and_values, jnp.repeat(lengths_B, G))
        hidden, _ = model.apply({"params": params}, chunks_RxE, cache)
    hidden_RxExD: Any = hidden
    per_slice = max(1, _LOGIT_ROWS // (B * G))
    size = math.gcd(E, 2 ** int(math.log2(per_slice)))

    def of_chunk(chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        hidden_RxCxD, targets_RxC = chunk
        logits: Any = model.apply({"params": params}, hidden_RxCxD, method=GPT2.unembed)
        picked_RxC = jnp.take_along_axis(logits, targets_RxC[..., None], axis=-1)[..., 0]
        largest_RxC = logits.max(axis=-1)
        sums_RxC = jnp.exp(logits - largest_RxC[..., None]).sum(axis=-1)
        # argmax is slow on CPUs. A token that ties with the most probable one counts, too.
        greedy_RxC = allowed_RxC = picked_RxC == largest_RxC
        if banned_V is not None:
            rivals_RxC = logits.max(axis=-1, where=~banned_V, initial=-jnp.inf)
            allowed_RxC = (picked_RxC >= rivals_RxC) & ~banned_V[targets_RxC]
        return picked_RxC - largest_RxC - jnp.log(sums_RxC), greedy_RxC, allowed_RxC

    def split(x: jax.Array) -> jax.Array:
        """Reshapes [R, E, ...] to [E / size, R, size, ...]."""
        return jnp.moveaxis(x.reshape(B * G, E // size, size, *x.shape[2:]), 1, 0)

    slices = jax.lax.map(of_chunk, (split(hidden_RxExD), split(targets_BxGxE.reshape(B * G, E))))
    whole = [jnp.moveaxis(x, 0, 1).reshape(B, G, E) for x in slices]
    return tuple(jax.lax.with_sharding_constraint(x, PartitionSpec()) for x in whole)
