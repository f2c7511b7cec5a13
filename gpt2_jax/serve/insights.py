"""Does the explorer's work on models and texts, one piece at a time, in its one thread."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.inference.generate import encode_prompt
from gpt2_jax.interpret.card import card
from gpt2_jax.interpret.comparison import compare
from gpt2_jax.interpret.curves import curves
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.interventions import parse
from gpt2_jax.interpret.run import Run, longest_text
from gpt2_jax.interpret.text import pieces
from gpt2_jax.interpret.training_step import training_step
from gpt2_jax.model.lora import without_adapters
from gpt2_jax.serve.errors import ApiError, too_long, wrong
from gpt2_jax.serve.explorer_fields import text_or_tokens
from gpt2_jax.serve.lesson import lesson
from gpt2_jax.serve.models import Models
from gpt2_jax.serve.runs import MOST_RUN_BYTES, Kept, run_id
from gpt2_jax.serve.served import Served
from gpt2_jax.serve.steps import saved_steps
from gpt2_jax.serve.subjects import Shown, Subjects
from gpt2_jax.tokenizers.base import checked_ids

_TIMES_TOO_LONG = 16
"""A text that is so many times too long is refused before it is encoded, without a count."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """Holds a run and its id.

    Attributes:
      id: of `run_id`.
      shown: the model and the step.
      inspection: the numbers.
      interventions: as JSON.
    """

    id: str
    shown: Shown
    inspection: Inspection
    interventions: Mapping[str, Any]

    @property
    def num_bytes(self) -> int:
        """Returns the bytes that it keeps."""
        return self.inspection.num_bytes


class Insights:
    """Runs texts and gives out their numbers; all methods block, and one thread calls them."""

    def __init__(self, models: Models, most_bytes: int = MOST_RUN_BYTES) -> None:
        """Starts without runs.

        Args:
          models: of the server.
          most_bytes: of all runs together.
        """
        self._models = models
        self.runs: Kept[Seen] = Kept(most_bytes)
        self.subjects = Subjects(models, self._forget)
        self._last: Seen | None = None

    def _forget(self, gone: Shown) -> None:
        # Its runs would keep the parameters in memory.
        self.runs.drop(lambda seen: seen.shown is gone)
        if self._last is not None and self._last.shown is gone:
            self._last = None

    def listed(self) -> list[dict[str, Any]]:
        """Returns the models, and the saved steps of those that are runs."""
        return [self._entry(model) for model in self._models.named.values()]

    def _entry(self, model: Served) -> dict[str, Any]:
        return {
            "id": model.name,
            "takes_text": model.names.takes_text,
            "tokenizer": model.tokenizer.name,
            "ends": sorted(model.tokenizer.ends),
            "max_tokens": self.longest(model),
            "step": model.step,
            "steps": sorted(saved_steps(model.path)),
            "path": str(model.path),
            "ema": self._models.limits.ema,
        }

    @staticmethod
    def longest(model: Served) -> int:
        """Returns the most tokens of a text for a model."""
        return longest_text(model.config.model)

    def steps(self, name: str | None) -> dict[str, Any]:
        """Returns the saved steps of a model, and which of them are in memory.

        Raises:
          ApiError: 404 if there is no such model.
        """
        model = self._models.find(name)
        return {
            "model": model.name,
            "step": model.step,
            "steps": sorted(saved_steps(model.path)),
            "loaded": self.subjects.loaded(model),
        }

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Runs a text, unless that run is in memory, and returns its summary.

        Args:
          values: of `RUN_FIELDS`.

        Raises:
          ApiError: for a field that the model has no place for.
        """
        text = text_or_tokens(values)
        shown = self.subjects.get(values["model"], values["step"])
        seen = self._seen(shown, self._tokens(shown, text), values["interventions"])
        summary = seen.inspection.summary()
        self.runs.put(seen.id, seen)  # which may be larger than it was
        return {"run": seen.id, "model": shown.model.name, "step": shown.step, **summary}

    def array(self, id_: str, address: str) -> bytes:
        """Returns an array of a run as a file of NumPy's.

        Args:
          id_: of the run.
          address: of the array.

        Raises:
          ApiError: 410 if the run is not in memory, 404 if it has no such array.
        """
        inspection = self.find(id_).inspection
        try:
            array = inspection[address]
        except UserError as error:
            raise ApiError(404, str(error), param="address", code="no_such_view") from None
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        return file.getvalue()

    def lesson(self, id_: str, state: Mapping[str, Any], language: str) -> bytes:
        """Returns the one-file lesson of a run.

        Args:
          id_: of the run.
          state: numbers that the page opens with: layer, head, query, key; None if not chosen.
          language: of the page.

        Raises:
          ApiError: 410 if the run is not in memory, 400 for a number out of range.
        """
        seen = self.find(id_)
        config, length = seen.shown.subject.config, len(seen.inspection.tokens)
        limits = {"layer": config.num_layers, "head": config.num_heads}
        for part, value in state.items():
            limit = limits.get(part, length)
            if value is not None and value >= limit:
                raise wrong(part, f"{part} must be below {limit}, not {value}")
        chosen = {part: value for part, value in state.items() if value is not None}
        opened = {"model": seen.shown.model.name, "step": seen.shown.step, **chosen}
        if seen.interventions:
            opened["interventions"] = seen.interventions
        return lesson(seen.inspection, opened, language)

    def card(self, name: str | None) -> dict[str, Any]:
        """Returns what a model has: its parameters as a sum by part, and its bytes.

        Raises:
          ApiError: 404 if there is no such model.
        """
        config = self._models.find(name).config.model
        return card(without_adapters(config) if config.lora_rank else config)

    def words(self, name: str | None, ids: Sequence[int]) -> list[list[Any]]:
        """Returns [id, text] of tokens of a model, as summaries name them.

        Raises:
          ApiError: 404 if there is no such model, 400 for an id that it does not know.
        """
        tokenizer = self._models.find(name).tokenizer
        try:
            known = checked_ids(ids, tokenizer)
        except UserError as error:
            raise wrong("ids", str(error)) from None
        return [[token, pieces(tokenizer, [token])[0].text] for token in known]

    def compare(self, a: str, b: str) -> dict[str, Any]:
        """Returns how two runs of one text, which their ids name, differ.

        Raises:
          ApiError: 410 if one is not in memory, 400 if they are of different texts.
        """
        runs = [self.find(id_, param).inspection.run for id_, param in ((a, "a"), (b, "b"))]
        try:
            return compare(*runs)
        except UserError as error:
            raise wrong("b", str(error)) from None

    def train_step(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what one training step on a text changes.

        Args:
          values: of `TRAIN_STEP_FIELDS`.

        Raises:
          ApiError: for a field that the model has no place for.
        """
        text = text_or_tokens(values)
        shown = self.subjects.get(values["model"], values["step"])
        tokens = self._tokens(shown, text)
        if len(tokens) < 2:
            named = "text" if isinstance(text, str) else "tokens"
            raise wrong(named, f"{named} must have at least 2 tokens, of which one is predicted")
        return training_step(shown.subject, tokens, values["optimizer"], values["learning_rate"])

    def curves(self, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Returns an iterator over what a text is at each saved step, from the first to the last.

        Args:
          values: of `CURVES_FIELDS`.

        Raises:
          ApiError: for a field that the model has no place for.
        """
        text, name = text_or_tokens(values), values["model"]
        model = self._models.find(name)
        steps = sorted(saved_steps(model.path)) or [model.step]
        tokens = self._tokens(self.subjects.get(name, steps[-1]), text)
        return curves(steps, lambda step: self.subjects.get(name, step).subject, tokens)

    def find(self, id_: str, param: str = "run") -> Seen:
        """Returns a run.

        Args:
          id_: of the run.
          param: the field that names it.

        Raises:
          ApiError: 410 if it is not in memory.
        """
        seen = self.runs.get(id_)
        if seen is None:
            raise ApiError(
                410,
                "the run is not in memory any more: POST its text to /explore/v1/run again",
                param=param,
                code="run_gone",
            )
        return self._used(seen)

    def _seen(self, shown: Shown, tokens: Sequence[int], changes: Mapping[str, Any] | None) -> Seen:
        asked, T = _written(changes or {}), len(tokens)
        id_ = run_id(shown.subject.fingerprint, shown.step, tokens, asked)
        seen = self.runs.get(id_)
        if seen is None:
            try:
                changed = parse(asked, self._donor)
                run = Run(shown.subject, tokens, changed)
            except UserError as error:
                # The number of tokens was checked before.
                beyond = [at for swap in asked.get("swaps", ()) if (at := swap["position"]) >= T]
                counts = {"position": beyond[0], "tokens": T} if beyond else {}
                raise wrong("interventions", f"interventions: {error}", **counts) from None
            seen = Seen(id_, shown, Inspection(run), asked)
            self.runs.put(id_, seen)
        return self._used(seen)

    def _donor(self, id_: str) -> Run:
        return self.find(id_, "interventions").inspection.run

    def _used(self, seen: Seen) -> Seen:
        """Has the run that was used before let go of its blocks, which are larger than all else."""
        if self._last is not seen:
            if self._last is not None:
                self._last.inspection.run.forget_blocks()
            self._last = seen
        return seen

    def _tokens(self, shown: Shown, text: str | list[int]) -> list[int]:
        subject, named = shown.subject, "text" if isinstance(text, str) else "tokens"
        longest = shown.model.longest_token if named == "text" else 1
        if len(text) > _TIMES_TOO_LONG * subject.longest * longest:
            raise too_long(named, f"{named} exceeds the {subject.longest} tokens that can be shown")
        try:
            if isinstance(text, str):
                tokens = encode_prompt(subject.tokenizer, text)
            else:
                tokens = checked_ids(text, subject.tokenizer)
        except UserError as error:
            raise wrong(named, str(error)[:300]) from None
        if len(tokens) > subject.longest:
            raise too_long(
                named,
                f"the text has {len(tokens)} tokens, and the model takes at most {subject.longest} "
                "here: shorten it",
                tokens=len(tokens),
                most=subject.longest,
            )
        return tokens


def _written(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns interventions as JSON in which those that are equal are written alike."""
    written: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "unmasked" and value:
            written[name] = sorted({*value})
        elif name != "swaps" and value:
            written[name] = sorted([*key, float(factor)] for *key, factor in value)
        elif value:
            written[name] = value
    return written
