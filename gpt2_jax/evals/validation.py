"""Validates a model after its training, and on windows of other lengths than it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gpt2_jax.config import Config, MeshConfig
from gpt2_jax.data.example_batches import Fitted
from gpt2_jax.data.token_sets import TokenSets
from gpt2_jax.errors import UserError
from gpt2_jax.evals.perplexity import (
    BY_POSITION,
    MixturePerplexity,
    Perplexity,
    make_validation,
)
from gpt2_jax.formats.model import ModelReader
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.prepare.example_files import open_data


class ValidationAtLengths:
    """Evaluates `eval/loss_at_N` in the training loop, for windows of N tokens; see `Perplexity`.

    Of a mixture it also evaluates `eval/NAME/loss_at_N`. The loss by position of N tokens is
    `eval/loss_by_position_at_N`.
    """

    def __init__(self, evaluators: Mapping[int, Perplexity | MixturePerplexity]) -> None:
        """Takes the evaluator of each length."""
        self._evaluators = evaluators

    def __call__(
        self, params: Any, tick: Callable[[], None]
    ) -> Iterator[tuple[str, float | np.ndarray]]:
        """Yields the losses of these parameters, in nats per token."""
        for length, evaluator in self._evaluators.items():
            for name, value in evaluator(params, tick):
                if name.endswith("/loss") or name == BY_POSITION:
                    yield f"{name}_at_{length}", value


def make_validation_at_lengths(
    config: Config, sets: TokenSets, mesh: Mesh, rules: Rules, abstract_params: Any
) -> ValidationAtLengths:
    """Makes the evaluator for `eval.context_lengths`; see `make_validation`."""
    return ValidationAtLengths(
        {
            length: make_validation(
                config, sets, mesh, rules, abstract_params, context_length=length
            )
            for length in config.eval.lengths
        }
    )


class ValidationSplit:
    """Scores the validation split of the data that a model was trained on, as training does.

    Attributes:
      name: `validation`, or `validation_at_N` for windows that are not as long as in training.
      protocol: the rules that the numbers follow.
    """

    def __init__(self, reader: ModelReader, context_length: int, limit: int | None = None) -> None:
        """Opens the data.

        Args:
          reader: the model, whose parameters need not have been read.
          context_length: tokens of a window.
          limit: windows to score, from the first; by default as `eval.batches` of the run says.

        Raises:
          UserError: if the model does not say which data it was trained on, or it is missing or has
            changed, or there is nothing to score.
          StorageError: if a bucket cannot be reached.
        """
        self._config, self._length, self._limit = reader.config, context_length, limit
        self._sets = _open_sets(reader)
        if limit is None and reader.config.eval.batches == 0:
            raise UserError(f"{reader.path} has eval.batches=0: pass --limit N to score N windows")
        trained = reader.config.model.context_length
        if context_length != trained and any(
            isinstance(each, Fitted) for each in self._sets.val_tokens.values()
        ):
            raise UserError(
                f"{reader.path} was trained on examples, which are no windows of one stream and "
                f"are validated whole, in {trained} tokens: omit --context_length"
            )
        self.name = "validation"
        if context_length != trained:
            self.name += f"_at_{context_length}"
        self.protocol = (
            f"the validation split of {', '.join(self._sets.val_tokens)}, as training scores it, "
            f"windows of {context_length} tokens, no overlap"
        )
        if any(isinstance(each, Fitted) for each in self._sets.val_tokens.values()):
            self.protocol += "; of examples, their answers alone"

    def evaluate(
        self, params: Any, show: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, float]:
        """Returns what training logs, without `eval/`, and `count`, the number of windows.

        Args:
          params: scanned parameters, on one device.
          show: called with (windows scored, windows in all).
        """
        mesh, rules = make_mesh(MeshConfig(), jax.local_devices()), Rules()
        placed = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
            placed,
        )
        evaluator = make_validation(
            self._config,
            self._sets,
            mesh,
            rules,
            abstract,
            context_length=self._length,
            limit=self._limit,
        )
        started, windows = 0, evaluator.num_windows

        def tick() -> None:
            nonlocal started
            show(windows * started // evaluator.num_batches, windows)
            started += 1

        numbers: dict[str, float] = {
            name.removeprefix("eval/"): value
            for name, value in evaluator(placed, tick)
            if not isinstance(value, np.ndarray)
        }
        show(windows, windows)
        return numbers | {"count": windows}


def _open_sets(reader: ModelReader) -> TokenSets:
    """Opens the data that a model was trained on."""
    config = reader.config
    if config.data.path is None and config.data.mixture is None:
        raise UserError(
            f"{reader.path} does not name the data that it was trained on, and so has no "
            "validation split: name a run's workdir, or score texts with --text FILE"
        )
    sets = open_data(config, tokenizer=reader.tokenizer)
    trained_on = reader.data_fingerprint
    is_other = trained_on is not None and trained_on != sets.fingerprint
    if is_other or sets.tokenizer.to_dict() != reader.tokenizer.to_dict():
        raise UserError(
            f"the data of {', '.join(config.data.weights)} are not those that {reader.path} was "
            "trained on: restore them, or score texts with --text FILE"
        )
    return sets
