"""Does the explorer's work on models and texts, one piece at a time, in its one thread."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.inference.generate import encode_prompt
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.interventions import Interventions, Swap
from gpt2_jax.interpret.run import Run, longest_text
from gpt2_jax.interpret.views import VIEWS
from gpt2_jax.serve.errors import ApiError, wrong
from gpt2_jax.serve.explorer_fields import text_or_tokens
from gpt2_jax.serve.models import Models, Served, saved_steps
from gpt2_jax.serve.runs import MOST_RUN_BYTES, Kept, run_id
from gpt2_jax.serve.subjects import Shown, Subjects
from gpt2_jax.tokenizers.base import checked_ids


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """Holds a run under its name.

    Attributes:
      id: of `run_id`.
      shown: the model and the step.
      inspection: the numbers.
    """

    id: str
    shown: Shown
    inspection: Inspection

    @property
    def num_bytes(self) -> int:
        """Returns the bytes that it keeps."""
        return self.inspection.run.num_bytes


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

    def _forget(self, gone: Shown) -> None:
        # Its runs would keep the parameters in memory.
        self.runs.drop(lambda seen: seen.shown is gone)

    def listed(self) -> list[dict[str, Any]]:
        """Returns the models, and the saved steps of those that are runs."""
        return [self._entry(model) for model in self._models.named.values()]

    def _entry(self, model: Served) -> dict[str, Any]:
        return {
            "id": model.name,
            "takes_text": model.names.takes_text,
            "tokenizer": model.tokenizer.name,
            "max_tokens": self.longest(model),
            "step": model.step,
            "steps": sorted(saved_steps(model.path)),
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
        return {
            "run": seen.id,
            "model": shown.model.name,
            "step": shown.step,
            **seen.inspection.summary(),
        }

    @staticmethod
    def views() -> list[dict[str, str]]:
        """Returns the address, dtype, shape and formula of every array of a run."""
        names = ("address", "dtype", "shape", "formula")
        return [{name: getattr(view, name) for name in names} for view in VIEWS]

    def array(self, name: str, address: str) -> bytes:
        """Returns an array of a run as a file of NumPy's.

        Args:
          name: of the run.
          address: of the array.

        Raises:
          ApiError: 410 if the run is not in memory, 404 if it has no such array.
        """
        inspection = self.find(name).inspection
        try:
            array = inspection[address]
        except UserError as error:
            raise ApiError(404, str(error), param="address", code="no_such_view") from None
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        return file.getvalue()

    def find(self, name: str, param: str = "run") -> Seen:
        """Returns a run.

        Args:
          name: of the run.
          param: the field that names it.

        Raises:
          ApiError: 410 if it is not in memory.
        """
        seen = self.runs.get(name)
        if seen is None:
            raise ApiError(
                410,
                "the run is not in memory any more: POST its text to /explore/v1/run again",
                param=param,
                code="run_gone",
            )
        return seen

    def _seen(self, shown: Shown, tokens: Sequence[int], changes: Mapping[str, Any] | None) -> Seen:
        asked = _canonical(changes or {})
        name = run_id(shown.subject.fingerprint, shown.step, tokens, asked)
        seen = self.runs.get(name)
        if seen is None:
            try:
                interventions = self._interventions(shown, changes or {})
                run = Run(shown.subject, tokens, interventions)
            except UserError as error:
                # The number of tokens was checked before.
                raise wrong("interventions", str(error)) from None
            seen = Seen(name, shown, Inspection(run))
            self.runs.put(name, seen)
        return seen

    def _tokens(self, shown: Shown, text: str | list[int]) -> list[int]:
        subject, named = shown.subject, "text" if isinstance(text, str) else "tokens"
        longest = shown.model.longest_token if named == "text" else 1
        if len(text) > subject.longest * longest:
            raise wrong(named, f"{named} exceeds the {subject.longest} tokens that can be shown")
        try:
            if isinstance(text, str):
                tokens = encode_prompt(subject.tokenizer, text)
            else:
                tokens = checked_ids(text, subject.tokenizer)
        except UserError as error:
            raise wrong(named, str(error)[:300]) from None
        if len(tokens) > subject.longest:
            raise wrong(
                named,
                f"{named} of {len(tokens)} tokens exceeds the {subject.longest} that can be shown",
            )
        return tokens

    def _interventions(self, shown: Shown, changes: Mapping[str, Any]) -> Interventions:
        return Interventions(
            heads={key: factor for key, factor in (changes.get("heads") or {}).items()},
            mlps={layer: factor for (layer,), factor in (changes.get("mlps") or {}).items()},
            neurons={key: factor for key, factor in (changes.get("neurons") or {}).items()},
            unmasked=tuple(changes.get("unmasked") or ()),
            swaps=tuple(self._swap(shown, swap) for swap in changes.get("swaps") or ()),
        )

    def _swap(self, shown: Shown, swap: Mapping[str, Any]) -> Swap:
        other = self.find(swap["from"]["run"], "interventions").inspection
        layer, head, at = swap["layer"], swap["head"], swap["from"]["position"]
        if swap["site"] == "z":
            donor = other[f"z/{layer}/{head}"]
            if at >= len(donor):
                raise UserError(f"the other text has {len(donor)} tokens, and no position {at}")
            donor = donor[at]
        elif swap["site"] == "mlp":
            donor = other[f"mlp_out/{layer}/{at}"]
        else:
            rows = other[f"residual/{at}"][2::2]
            if layer >= len(rows):
                raise UserError(f"the other model has {len(rows)} layers, and no layer {layer}")
            donor = rows[layer]
        config = shown.subject.config
        width = config.head_dim if swap["site"] == "z" else config.d_model
        if len(donor) != width:
            raise UserError(f"{swap['site']} is {width} wide here, {len(donor)} in the other model")
        return Swap(swap["site"], layer, swap["position"], donor, head)


def _canonical(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns interventions as JSON in which equal ones are written alike."""
    written: dict[str, Any] = {}
    for name, value in changes.items():
        if name in ("heads", "mlps", "neurons") and value:
            written[name] = sorted([*key, factor] for key, factor in value.items())
        elif name == "unmasked" and value:
            written[name] = sorted({*value})
        elif value:
            written[name] = value
    return written
