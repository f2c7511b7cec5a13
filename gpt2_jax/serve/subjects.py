"""Finds the parameters that the explorer looks into: of the models, and of saved steps of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax

from gpt2_jax.errors import Gpt2JaxError, error_text
from gpt2_jax.formats import load as load_lib
from gpt2_jax.interpret.run import Subject
from gpt2_jax.serve.errors import ApiError, wrong
from gpt2_jax.serve.models import Models
from gpt2_jax.serve.runs import Kept
from gpt2_jax.serve.served import Served
from gpt2_jax.serve.steps import run_folder, saved_steps

MOST_STEP_BYTES = 2**30
"""The most bytes of the saved steps in memory, but for the last two, which can be compared."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """Holds one step of a model, as the explorer looks into it.

    Attributes:
      model: that it is of.
      step: 0 if it is unknown.
      subject: with the parameters.
    """

    model: Served
    step: int
    subject: Subject

    @property
    def num_bytes(self) -> int:
        """Returns the bytes of the parameters."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.subject.params))


class Subjects:
    """Holds models and steps for the explorer; only the explorer's own thread may use it."""

    def __init__(self, models: Models, on_gone: Callable[[Shown], None]) -> None:
        """Starts with none.

        Args:
          models: of the server.
          on_gone: is called with a step that made room for others.
        """
        self._models, self._on_gone = models, on_gone
        self._named: dict[str, Shown] = {}
        self._steps: Kept[Shown] = Kept(MOST_STEP_BYTES, at_least=2)

    def get(self, name: str | None, step: int | None = None) -> Shown:
        """Returns a model, or a saved step of the run that it is of.

        Args:
          name: of a model; by default the first.
          step: by default the one that the server generates with.

        Raises:
          ApiError: 404 if there is no such model or step, 503 if it cannot be read.
        """
        model = self._models.find(name)
        if step is None or step == model.step:
            if model.name not in self._named:
                self._named[model.name] = Shown(model, model.step, self._subject_of(model))
            return self._named[model.name]
        key = f"{model.name}@{step}"
        shown = self._steps.get(key)
        if shown is None:
            shown = Shown(model, step, self._read(_folder(model, step)))
            for gone in self._steps.put(key, shown):
                self._on_gone(gone)
        return shown

    def loaded(self, model: Served) -> list[int]:
        """Returns the steps of a model that are in memory."""
        mine = [name.rpartition("@") for name in self._steps.names]
        return sorted({model.step} | {int(step) for name, _, step in mine if name == model.name})

    @staticmethod
    def is_shared(model: Served) -> bool:
        """Returns whether the explorer looks into the very arrays that the server generates with.

        If not, as in bfloat16 or with adapters, it reads the model again when it first looks.
        """
        return model.config.compute.dtype == "float32" and not model.config.model.lora_rank

    def _subject_of(self, model: Served) -> Subject:
        if self.is_shared(model):
            return Subject(model.config, model.params, model.tokenizer)
        return self._read(model.path)

    def _read(self, folder: Path) -> Subject:
        try:
            model = load_lib.load(folder, ema=self._models.limits.ema)
        except Gpt2JaxError as error:
            raise ApiError(503, error_text(error), param="step", code="step_unreadable") from None
        return Subject(model.config, model.params, model.tokenizer)


def _folder(model: Served, step: int) -> Path:
    """Returns the folder of a saved step, or raises ApiError."""
    steps = saved_steps(model.path)
    if not steps:
        raise wrong("step", f"step {step}: {model.name} is not a run, so that it has no steps")
    if step not in steps:
        shown = ", ".join(map(str, sorted(steps)[-8:]))
        raise ApiError(
            404,
            f"{model.name} has no saved step {step}; the last ones are {shown}",
            param="step",
            code="step_not_found",
        )
    return run_folder(model.path) / str(step)
