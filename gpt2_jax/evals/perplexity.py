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
from gpt2_jax.data.batch import BatchSource
from gpt2_jax.data.documents import IsolatedDocuments, OneDocument
from gpt2_jax.data.example_batches import ExampleRows, Fitted
from gpt2_jax.data.loader import EvalWindows, device_batches
from gpt2_jax.data.shards import TokenArray
from gpt2_jax.data.token_sets import TokenSets
from gpt2_jax.parallel.mesh import batch_shards
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.training.step import batch_sharding, compile_eval_step

BY_POSITION = "eval/loss_by_position"
"""The name of the array of losses at each position of the context."""


class Perplexity:
    """Evaluates `eval/loss` (nats per token), `eval/perplexity` and `eval/bits_per_byte`.

    It also yields `eval/loss_by_position`, the loss of the tokens at each position of the context,
    as an array [T]; not a number at positions where none is scored.

    The tokens are read in non-overlapping windows of the context length, or of another length, so
    that each token except the very first is scored once. Bits per byte divides by the UTF-8 bytes
    of the scored tokens, so that models with different tokenizers can be compared; the loss on
    end-of-text tokens counts although they stand for no bytes.

    Of examples only answers and the ends of text after them are scored, in packed rows, as in
    training. Their places in a row mean nothing, so that there is no loss by position.

    Attributes:
      num_batches: batches of a pass.
      num_windows: windows of a pass.
      bytes_per_token: UTF-8 bytes that a scored token stands for, on average.
      by_position: whether there is a loss by position.
    """

    def __init__(
        self,
        config: Config,
        tokens: TokenArray | Fitted,
        tokenizer: Tokenizer,
        mesh: Mesh,
        rules: Rules,
        abstract_params: Any,
        compiled: Perplexity | None = None,
        num_bytes: int | None = None,
        context_length: int | None = None,
        limit: int | None = None,
        segmented: bool | None = None,
    ) -> None:
        """Compiles the evaluation step.

        Args:
          config: of the run.
          tokens: the validation split, a stream of tokens or the examples that fit the context;
            `eval.batches` limits how much of it is scored.
          tokenizer: gives the bytes of each token.
          mesh, rules: how arrays are sharded.
          abstract_params: ShapeDtypeStructs with the shardings that the parameters will have.
          compiled: an evaluator of other tokens whose compiled step is reused.
          num_bytes: the bytes of text of all tokens, if they are known; otherwise the tokens are
            read to count them.
          context_length: tokens of a window; by default the model's context. Whatever it is, the
            same tokens are scored.
          limit: windows to score; by default as `eval.batches` says.
          segmented: whether the compiled step takes segments; by default as the tokens need it.
        """
        T = context_length or config.model.context_length
        batch_size = _rows_of_batch(config, T, batch_shards(mesh))
        self._batches: BatchSource
        if isinstance(tokens, Fitted):
            self._take_examples(config, tokens, tokenizer, batch_size, limit)
        else:
            self._take_windows(config, tokens, tokenizer, batch_size, T, num_bytes, limit)
        if segmented and not self._batches.segmented:
            self._batches = OneDocument(self._batches)
        self.by_position = not isinstance(tokens, Fitted)
        self._sharding = batch_sharding(mesh)
        self._eval_step = (
            compiled._eval_step
            if compiled
            else compile_eval_step(
                config,
                batch_size,
                mesh,
                rules,
                abstract_params,
                T,
                segmented=self._batches.segmented,
            )
        )

    def _take_examples(
        self, config: Config, val: Fitted, tokenizer: Tokenizer, batch_size: int, limit: int | None
    ) -> None:
        assert tokenizer.eot is not None, "examples end with it"
        if limit is None and config.eval.batches >= 0:
            limit = config.eval.batches * config.train.batch_size // config.train.accumulation_steps
        rows = ExampleRows(val, batch_size=batch_size, padding=tokenizer.eot, limit=limit)
        self._batches, self.num_batches, self.num_windows = rows, len(rows), rows.num_rows
        count, size = rows.targets(tokenizer.byte_lengths())
        self.bytes_per_token = size / max(count, 1)

    def _take_windows(
        self,
        config: Config,
        tokens: TokenArray,
        tokenizer: Tokenizer,
        batch_size: int,
        T: int,
        num_bytes: int | None,
        limit: int | None,
    ) -> None:
        most = _targets(config) if limit is None else limit * T
        windows = EvalWindows(tokens, batch_size=batch_size, context_length=T, limit=most)
        num_scored = windows.num_targets
        self.num_batches, self.num_windows = len(windows), -(-num_scored // T)
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

    def __call__(
        self, params: Any, tick: Callable[[], None]
    ) -> Iterator[tuple[str, float | np.ndarray]]:
        """Yields the numbers for these parameters, or none if there is nothing to score."""
        found = self.losses(params, tick)
        if found is not None:
            loss, loss_T = found
            yield from _numbers(loss, self.bytes_per_token)
            if self.by_position:
                yield BY_POSITION, loss_T

    def losses(self, params: Any, tick: Callable[[], None]) -> tuple[float, np.ndarray] | None:
        """Returns nats per token of all and at each position, None if there is nothing to score.

        Calls `tick` before each batch.
        """
        batches = device_batches(self._batches, self._sharding, stop_step=self.num_batches)
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

    Attributes:
      num_batches, num_windows: of a pass over all sets.
    """

    def __init__(self, sets: Mapping[str, Perplexity], weights: Sequence[float]) -> None:
        """Takes evaluators by name, and the weight of each in the mixture."""
        self._sets, self._weights = sets, np.array(weights) / np.sum(weights)
        self.num_batches = sum(each.num_batches for each in sets.values())
        self.num_windows = sum(each.num_windows for each in sets.values())

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
        if all(each.by_position for each in self._sets.values()):
            yield BY_POSITION, self._weights @ np.stack([loss_T for _, loss_T in known])


def make_validation(
    config: Config,
    sets: TokenSets,
    mesh: Mesh,
    rules: Rules,
    abstract_params: Any,
    *,
    context_length: int | None = None,
    limit: int | None = None,
) -> Perplexity | MixturePerplexity:
    """Makes the evaluator of a run's validation splits; sets of a mixture share one program.

    Args:
      config: of the run.
      sets: its data.
      mesh, rules: how the parameters are sharded.
      abstract_params: ShapeDtypeStructs with the shardings that the parameters will have.
      context_length, limit: see `Perplexity`.
    """
    evaluators: list[Perplexity] = []
    examples = any(isinstance(tokens, Fitted) for tokens in sets.val_tokens.values())
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
                context_length=context_length,
                limit=limit,
                segmented=examples or None,
            )
        )
    if len(evaluators) == 1:
        return evaluators[0]
    names = short_names(list(sets.val_tokens))
    return MixturePerplexity(dict(zip(names, evaluators, strict=True)), sets.weights)


def _rows_of_batch(config: Config, context_length: int, shards: int) -> int:
    """Returns how many windows a batch has: as training, or fewer if they are longer.

    They are a multiple of the number of parts that a batch is divided into.
    """
    rows = config.train.batch_size // config.train.accumulation_steps
    if context_length > config.model.context_length:
        rows = rows * config.model.context_length // context_length
    return max(rows // shards, 1) * shards


def _targets(config: Config) -> int | None:
    """Returns how many tokens `eval.batches` allows to score, in windows of any length."""
    if config.eval.batches < 0:
        return None
    rows = config.train.batch_size // config.train.accumulation_steps
    return config.eval.batches * rows * config.model.context_length


def short_names(paths: Sequence[str]) -> list[str]:
    """Returns the folders' own names, or the whole paths if two folders share a name."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _numbers(loss: float, bytes_per_token: float) -> Iterator[tuple[str, float]]:
    yield "eval/loss", loss
    yield "eval/perplexity", math.exp(min(loss, 700))
    yield "eval/bits_per_byte", loss / math.log(2) / bytes_per_token


def _as_float64(pair: tuple[jax.Array, jax.Array]) -> np.ndarray:
    return np.stack([np.asarray(array, np.float64) for array in pair])
