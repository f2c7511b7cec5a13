"""Computes the validation loss over a fixed set of windows, the same every time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gpt2_jax.config import Config
from gpt2_jax.data.documents import IsolatedDocuments
from gpt2_jax.data.loader import EvalWindows, device_batches
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.data.token_sets import TokenSets
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.training.step import batch_sharding, compile_eval_step

BY_POSITION = "eval/loss_by_position"
"""The name of the array of losses at each position of the context."""


class Perplexity:
    """Evaluates `eval/loss` (nats per token), `eval/perplexity` and `eval/bits_per_byte`.

    It also yields `eval/loss_by_position`, the loss of the tokens at each position of the context,
    as an array [T]; not a number at positions where none is scored.

    The tokens are read in non-overlapping windows of the context length, so that each token except
    the very first is scored once. Bits per byte divides by the UTF-8 bytes of the scored tokens, so
    that models with different tokenizers can be compared; the loss on end-of-text tokens counts
    although they stand for no bytes.
    """

    def __init__(
        self,
        config: Config,
        tokens: TokenArray,
        tokenizer: Tokenizer,
        mesh: Mesh,
        rules: Rules,
        abstract_params: Any,
        compiled: Perplexity | None = None,
        num_bytes: int | None = None,
    ) -> None:
        """Compiles the evaluation step.

        Args:
          config: of the run.
          tokens: the validation split; `eval.batches` limits how much of it is scored.
          tokenizer: gives the bytes of each token.
          mesh, rules: how arrays are sharded.
          abstract_params: ShapeDtypeStructs with the shardings that the parameters will have.
          compiled: an evaluator of other tokens whose compiled step is reused.
          num_bytes: the bytes of text of all tokens, if they are known; otherwise the tokens are
            read to count them.
        """
        batch_size = config.train.batch_size // config.train.accumulation_steps
        T = config.model.context_length
        windows = EvalWindows(tokens, batch_size=batch_size, context_length=T)
        self._num_batches = len(windows)
        if config.eval.batches >= 0:
            self._num_batches = min(config.eval.batches, self._num_batches)
        num_scored = min(len(tokens) - 1, self._num_batches * batch_size * T)
        if num_bytes is None or num_scored < len(tokens) - 1:
            scored_bytes = tokenizer.byte_lengths()[tokens.read(1, num_scored)].sum()
        else:  # all but the first token are scored
            scored_bytes = num_bytes - tokenizer.byte_lengths()[tokens.read(0, 1)].sum()
        self.bytes_per_token = int(scored_bytes) / max(num_scored, 1)
        isolate = config.data.isolate_documents
        self._batches = windows
        if isolate:
            if tokenizer.eot is None:
                raise ValueError(f"the {tokenizer.name} tokenizer has no end of text")
            self._batches = IsolatedDocuments(windows, tokenizer.eot)
        self._sharding = batch_sharding(mesh)
        self._eval_step = (
            compiled._eval_step
            if compiled
            else compile_eval_step(config, batch_size, mesh, rules, abstract_params)
        )

    def __call__(
        self, params: Any, tick: Callable[[], None]
    ) -> Iterator[tuple[str, float | np.ndarray]]:
        """Yields the numbers for these parameters, or none if there is nothing to score."""
        found = self.losses(params, tick)
        if found is not None:
            loss, loss_T = found
            yield from _numbers(loss, self.bytes_per_token)
            yield BY_POSITION, loss_T

    def losses(self, params: Any, tick: Callable[[], None]) -> tuple[float, np.ndarray] | None:
        """Returns nats per token of all and at each position, None if there is nothing to score.

        Calls `tick` before each batch.
        """
        batches = device_batches(self._batches, self._sharding, stop_step=self._num_batches)
        sums_2xT = np.zeros((2, 1))
        pending = None
        with contextlib.closing(batches):
            for batch in batches:
                tick()
                # One batch is computed while the sums of the one before are read.
                started = self._eval_step(params, batch)
                if pending is not None:
                    sums_2xT = sums_2xT + _as_float64(pending)
                pending = started
        if pending is None:
            return None
        nats_T, tokens_T = sums_2xT + _as_float64(pending)
        with np.errstate(invalid="ignore"):
            return float(nats_T.sum() / tokens_T.sum()), nats_T / tokens_T


class MixturePerplexity:
    """Evaluates `eval/NAME/loss` of several sets, and the three numbers of their mixture.

    The loss of the mixture is the expected loss of a token drawn from the sets by their weights,
    whatever the sizes of their validation splits; bits per byte divides it by the expected bytes
    of such a token. The loss by position is expected in the same way.
    """

    def __init__(self, sets: Mapping[str, Perplexity], weights: Sequence[float]) -> None:
        """Takes evaluators by name, and the weight of each in the mixture."""
        self._sets, self._weights = sets, np.array(weights) / np.sum(weights)

    def __call__(
        self, params: Any, tick: Callable[[], None]
    ) -> Iterator[tuple[str, float | np.ndarray]]:
        """Yields the numbers for these parameters, or none if there is nothing to score."""
        found = [each.losses(params, tick) for each in self._sets.values()]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return
        scored = [loss for loss, _ in known]
        for name, loss in zip(self._sets, scored, strict=True):
            yield f"eval/{name}/loss", loss
        per_token = [each.bytes_per_token for each in self._sets.values()]
        yield from _numbers(float(self._weights @ scored), float(self._weights @ per_token))
        yield BY_POSITION, self._weights @ np.stack([loss_T for _, loss_T in known])


def make_validation(
    config: Config, sets: TokenSets, mesh: Mesh, rules: Rules, abstract_params: Any
) -> Perplexity | MixturePerplexity:
    """Makes the evaluator of a run's validation splits; sets of a mixture share one program.

    Args:
      config: of the run.
      sets: its data.
      mesh, rules: how the parameters are sharded.
      abstract_params: ShapeDtypeStructs with the shardings that the parameters will have.
    """
    evaluators: list[Perplexity] = []
    for path, tokens in sets.val_tokens.items():
        evaluators.append(
            Perplexity(
                config,
                tokens,
                sets.tokenizer,
                mesh,
                rules,
                abstract_params,
                compiled=evaluators[0] if evaluators else None,
                num_bytes=sets.val_bytes.get(path),
            )
        )
    if len(evaluators) == 1:
        return evaluators[0]
    names = _short_names(list(sets.val_tokens))
    return MixturePerplexity(dict(zip(names, evaluators, strict=True)), sets.weights)


def _short_names(paths: Sequence[str]) -> list[str]:
    """Returns the folders' own names, or the whole paths if two folders share a name."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _numbers(loss: float, bytes_per_token: float) -> Iterator[tuple[str, float]]:
    yield "eval/loss", loss
    yield "eval/perplexity", math.exp(min(loss, 700))
    yield "eval/bits_per_byte", loss / math.log(2) / bytes_per_token


def _as_float64(pair: tuple[jax.Array, jax.Array]) -> np.ndarray:
    return np.stack([np.asarray(array, np.float64) for array in pair])
