"""Holds the models that a server offers: those named at its start, and saved steps of runs."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.errors import UserError, did_you_mean, short_repr
from gpt2_jax.files.paths import is_remote
from gpt2_jax.formats.places import BEST, NEWEST, is_place
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.loaded_steps import LoadedSteps
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.served import Limits, Served
from gpt2_jax.serve.steps import run_folder, saved_steps

_NAMED = re.compile(r"([\w.:/-]+?)=(.+)")
_STEP = re.compile(r"(.+)@(0|[1-9][0-9]{0,17})")
_STEPS_SHOWN = 100


def named_models(words: Sequence[str]) -> dict[str, str]:
    """Returns {name: path} of the words `PATH` or `NAME=PATH`.

    Raises:
      UserError: if a name has other characters than a name can have, or two have the same name.
    """
    models: dict[str, str] = {}
    for word in words:
        match = None if Path(word).exists() else _NAMED.fullmatch(word)
        if not match and "=" in word and not Path(word).exists():
            raise UserError(
                f"--model {short_repr(word)} must be PATH or NAME=PATH: a name has letters, "
                "digits and . _ - : /, and the path of a model follows"
            )
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


class Models:
    """Finds models by name: those named at the start, and saved steps of runs.

    Attributes:
      limits: for each model.
      steps: the saved steps in memory.
      draining: whether the server ends; no request is begun any more.
    """

    def __init__(self, named: Sequence[Served], limits: Limits, metrics: Metrics) -> None:
        """Takes the models named at the start, of which the first is the default one.

        Args:
          named: the models.
          limits: for each of the steps.
          metrics: of all.
        """
        self._named = {model.name: model for model in named}
        self.limits, self.steps = limits, LoadedSteps(limits, metrics)
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
        return [*self._named.values(), *self.steps.all]

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

    def drain(self) -> None:
        """Refuses all that waits for a model, and has what runs go on; see `Worker.drain`."""
        self.draining = True
        self.steps.drain()
        for model in self.all:
            model.worker.drain()

    def listed(self) -> list[dict[str, Any]]:
        """Returns what `/v1/models` lists: the named models, and the saved steps of runs."""
        entries: dict[str, dict[str, Any]] = {}
        for model in self._named.values():
            names = [model.name]
            if not _STEP.fullmatch(model.name):  # it is a step already
                names += [f"{model.name}@{n}" for n in saved_steps(model.path)[:_STEPS_SHOWN]]
            for name in names:
                entries.setdefault(name, _entry(name, model))
        return [*entries.values()]

    def entry(self, name: str) -> dict[str, Any]:
        """Returns what `/v1/models` lists of one model.

        Raises:
          ApiError: 404 if there is none of this name.
        """
        entries = {entry["id"]: entry for entry in self.listed()}
        if name not in entries:
            raise _no_model(name, [*entries])
        return entries[name]

    @contextlib.asynccontextmanager
    async def using(self, name: str | None) -> AsyncIterator[Served]:
        """Gives a model, by default the first, which stays in memory while the block runs.

        A step that is not in memory is loaded, which takes its time.

        Raises:
          ApiError: 404 if there is none of this name, 503 if its step cannot be loaded now.
        """
        if name is None or name in self._named:
            yield self.find(name)
            return
        match = _STEP.fullmatch(name)
        run = self._named.get(match[1]) if match else None
        # The folder may be in a bucket.
        steps = await asyncio.to_thread(saved_steps, run.path) if run else []
        if not match or run is None or int(match[2]) not in steps:
            names = [entry["id"] for entry in await asyncio.to_thread(self.listed)]
            raise _no_model(name, names)
        async with self.steps.using(name, run_folder(run.path) / match[2]) as model:
            yield model


def _no_model(name: str, names: Sequence[str]) -> ApiError:
    problem = f"there is no model {short_repr(name)}" if name else "the name of a model is missing"
    return ApiError(
        404,
        f"{problem}{did_you_mean(name, names)}; GET /v1/models lists them",
        param="model",
        code="model_not_found",
    )


def _entry(name: str, model: Served) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "gpt2_jax",
        "max_model_len": model.worker.max_length,
    }
