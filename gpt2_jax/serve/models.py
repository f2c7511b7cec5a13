"""Holds the models that a server offers: those named at its start, and saved steps of runs."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from gpt2_jax.config import Config
from gpt2_jax.errors import Gpt2JaxError, UserError, did_you_mean, error_text, short_repr
from gpt2_jax.evals.run import model_digest
from gpt2_jax.files.paths import is_remote
from gpt2_jax.formats import load as load_lib
from gpt2_jax.formats.places import BEST, NEWEST, is_place
from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.generate import decode_params
from gpt2_jax.model.build import build_decoder
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.steps import run_folder, saved_steps
from gpt2_jax.serve.token_names import TokenNames
from gpt2_jax.serve.worker import QUEUE_SECONDS, State, Worker
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_NAMED = re.compile(r"([\w.:/-]+?)=(.+)")
_STEP = re.compile(r"(.+)@(0|[1-9][0-9]{0,17})")
_STEPS_SHOWN = 100


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


def named_models(words: Sequence[str]) -> dict[str, str]:
    """Returns {name: path} of the words `PATH` or `NAME=PATH`.

    Raises:
      UserError: if two have the same name.
    """
    models: dict[str, str] = {}
    for word in words:
        match = None if Path(word).exists() else _NAMED.fullmatch(word)
        name, path = (match[1], match[2]) if match else (_name_of(word), word)
        if name in models:
            raise UserError(f"two models are named {name}: name them, as in --model NAME={path}")
        models[name] = path
    return models


def _name_of(path: str) -> str:
    """Returns the last part of a path; of a step in a run, also RUN@best, the run's and the step's.

    A number behind RUN@ is a saved step, which requests may ask for; `best` and `newest` are none.
    """
    folder = Path(path)
    if folder.exists() or (not is_remote(path) and is_place(folder)):
        folder = folder.resolve()
    run = folder.parent.parent.name
    is_step = folder.name.isdigit() or folder.name in (BEST, NEWEST)
    if run and is_step and folder.parent.name == "checkpoints":
        return f"{run}@{folder.name}"
    return folder.name or "model"


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
        num_slots=limits.num_slots,
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


class Models:
    """Finds models by name, and loads saved steps of runs when they are first asked for."""

    def __init__(self, named: Sequence[Served], limits: Limits, metrics: Metrics) -> None:
        """Takes the models named at the start, of which the first is the default one.

        Args:
          named: the models.
          limits: for each of the steps.
          metrics: of all.
        """
        self._named = {model.name: model for model in named}
        self.limits, self._metrics = limits, metrics
        self._steps: dict[str, Served] = {}  # least recently used first
        self._loading = asyncio.Lock()
        self.draining = False
        for model in named:
            metrics.watch(model.name, model.worker)

    @property
    def default(self) -> Served:
        """Returns the first model."""
        return next(iter(self._named.values()))

    @property
    def all(self) -> list[Served]:
        """Returns all models in memory."""
        return [*self._named.values(), *self._steps.values()]

    @property
    def named(self) -> dict[str, Served]:
        """Returns the models that were named at the start, by their names."""
        return dict(self._named)

    def find(self, name: str | None) -> Served:
        """Returns a model that was named at the start, by default the first.

        Raises:
          ApiError: 404 if there is none of this name.
        """
        if name is None:
            return self.default
        if name not in self._named:
            raise _no_model(name, [*self._named])
        return self._named[name]

    def start(self) -> None:
        """Starts the workers of the named models."""
        for model in self._named.values():
            model.worker.start()

    def listed(self) -> list[dict[str, Any]]:
        """Returns what `/v1/models` lists: the named models, and the saved steps of runs."""
        entries = []
        for model in self._named.values():
            entries.append(_entry(model.name, model.created, model.worker.max_length))
            for step in saved_steps(model.path)[:_STEPS_SHOWN]:
                entries.append(
                    _entry(f"{model.name}@{step}", model.created, model.worker.max_length)
                )
        return entries

    async def get(self, name: str | None) -> Served:
        """Returns a model; a step that is not in memory is loaded, which takes its time.

        Raises:
          ApiError: 404 if there is none of this name, 503 if its step cannot be loaded now.
        """
        if name is None:
            return self.default
        if name in self._named:
            return self._named[name]
        match = _STEP.fullmatch(name)
        run = self._named.get(match[1]) if match else None
        # The folder may be in a bucket.
        steps = await asyncio.to_thread(saved_steps, run.path) if run else []
        if not match or run is None or int(match[2]) not in steps:
            names = [entry["id"] for entry in await asyncio.to_thread(self.listed)]
            raise _no_model(name, names)
        if name in self._steps and self._steps[name].worker.state is State.FAILED:
            self._metrics.forget(name)
            del self._steps[name]
        if name not in self._steps:  # one that is there does not wait for another that loads
            async with self._loading:
                if name not in self._steps:
                    self._make_room()
                    folder = run_folder(run.path) / match[2]
                    self._steps[name] = await asyncio.to_thread(self._load, name, folder)
        model = self._steps[name] = self._steps.pop(name)
        return model

    def _make_room(self) -> None:
        if self.draining or self.limits.steps < 1:
            raise ApiError(503, "no further step can be loaded", code="steps_busy")
        while len(self._steps) >= self.limits.steps:
            oldest = next((n for n, model in self._steps.items() if model.worker.idle), None)
            if oldest is None:
                raise ApiError(
                    503,
                    f"{len(self._steps)} saved steps are in memory and in use, of at most "
                    f"{self.limits.steps}: try again later",
                    code="steps_busy",
                )
            worker = self._steps.pop(oldest).worker
            worker.drain()
            worker.stop()
            self._metrics.forget(oldest)

    def _load(self, name: str, folder: Path) -> Served:
        try:
            model = load_served(name, folder, self.limits, self._metrics)
        except Gpt2JaxError as error:
            raise ApiError(503, error_text(error), param="model", code="step_unreadable") from None
        model.worker.start()
        while model.worker.state is State.WARMING:
            time.sleep(0.005)
        if model.worker.startup_error:
            # Kept, it would make the whole server look as if it had failed.
            reason = " ".join(error_text(model.worker.startup_error).split())
            raise ApiError(
                503, f"{name} cannot start: {reason[:300]}", param="model", code="step_unreadable"
            )
        self._metrics.watch(name, model.worker)
        return model


def _no_model(name: str, names: Sequence[str]) -> ApiError:
    return ApiError(
        404,
        f"there is no model {short_repr(name)}{did_you_mean(name, names)}; "
        "GET /v1/models lists them",
        param="model",
        code="model_not_found",
    )


def _entry(name: str, created: int, longest: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "gpt2_jax",
        "max_model_len": longest,
    }
