"""Loads a model and makes all that answers requests for it: worker, names, fingerprint."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax

from gpt2_jax.config import Config
from gpt2_jax.errors import UserError
from gpt2_jax.evals.run import model_digest
from gpt2_jax.formats import load as load_lib
from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.generate import decode_params
from gpt2_jax.model.build import build_decoder
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.token_names import TokenNames
from gpt2_jax.serve.worker import QUEUE_SECONDS, Worker
from gpt2_jax.tokenizers.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Limits:
    """Says how much each model may do at a time.

    Attributes:
      num_slots: how many texts are generated at a time.
      max_length: the most tokens of a text; None is the context.
      queue_seconds: how long a prompt waits at most.
      ema: whether the average of the parameters is served.
      dtype: of weights and products; None is that of the model's config.
      steps: how many saved steps are kept in memory beside the named models.
    """

    num_slots: int = 8
    max_length: int | None = None
    queue_seconds: float = QUEUE_SECONDS
    ema: bool = False
    dtype: str | None = None
    steps: int = 1


@dataclasses.dataclass(frozen=True)
class Served:
    """Holds a model that answers requests.

    Attributes:
      name: by which requests name it.
      tokenizer, names: of its texts.
      worker: generates with it.
      fingerprint: of all that bits of a text depend on, beside the request.
      created: in seconds since 1970.
      path: the folder that it was read from.
      longest_token: the most characters of a token.
      config: of the run that made it.
      params: unrolled, in the dtype of `config.compute`: those that the worker generates with.
      step: of the run, that they are of; 0 if it is unknown.
    """

    name: str
    tokenizer: Tokenizer
    names: TokenNames
    worker: Worker
    fingerprint: str
    created: int
    path: Path
    longest_token: int
    config: Config
    params: Any
    step: int


def load_served(name: str, path: str | Path, limits: Limits, metrics: Metrics) -> Served:
    """Loads a model and makes its worker, which is not started.

    Raises:
      UserError: if the folder is not a model, or cannot generate as many tokens.
      StorageError: if no checkpoint is good.
    """
    model = load_lib.load(path, ema=limits.ema, dtype=limits.dtype)
    return served(name, model, limits, metrics)


def served(name: str, model: load_lib.Model, limits: Limits, metrics: Metrics) -> Served:
    """Makes the worker of a model that was read; see `load_served`."""
    decoder = build_decoder(model.config.model, model.config.compute)
    params = decode_params(decoder, model.params)
    make_engine = functools.partial(
        Engine,
        decoder,
        params,
        model.tokenizer,
        num_slots=limits.num_slots,
        max_length=limits.max_length,
    )
    worker = Worker(
        make_engine,
        observer=metrics.of_model(name),
        queue_seconds=limits.queue_seconds,
    )
    digest = model_digest(model.params, model.config)[:16]
    dtype = model.config.compute.dtype
    fingerprint = (
        f"slots{limits.num_slots}-length{worker.max_length}-{dtype}-{jax.default_backend()}-"
        f"jax{jax.__version__}-{digest}"
    )
    return Served(
        name,
        model.tokenizer,
        TokenNames(model.tokenizer),
        worker,
        fingerprint,
        _created(model.path),
        model.path,
        _longest_token(model.tokenizer),
        model.config,
        params,
        model.step,
    )


def _created(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:  # it is in a bucket, or was removed meanwhile
        return int(time.time())


def _longest_token(tokenizer: Tokenizer) -> int:
    """Returns the most characters that a token stands for; of ids, which have no text, 1."""
    try:
        return max(1, int(tokenizer.byte_lengths().max()))
    except UserError:
        return 1
