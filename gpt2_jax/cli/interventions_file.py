"""Reads the changes inside of a model that `--interventions FILE` lists."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gpt2_jax.cli.texts import read_text
from gpt2_jax.errors import UserError

if TYPE_CHECKING:
    from gpt2_jax.api import LanguageModel
    from gpt2_jax.interpret.inspection import Inspection

FORM = (
    '{"heads": [[LAYER, HEAD, FACTOR]], "mlps": [[LAYER, FACTOR]], "neurons": [[LAYER, NEURON, '
    'FACTOR]], "unmasked": [LAYER], "swaps": [{"site": "resid_post", "layer": 0, "position": 1, '
    '"from": {"text": TEXT, "position": 1}}]}'
)
"""What such a file holds; every part may be missing."""
_FLAG = "--interventions"


def read(name: str) -> Any:
    """Returns the JSON of a file.

    Raises:
      UserError: if it cannot be read or is no JSON.
    """
    try:
        return json.loads(read_text(name, _FLAG))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{_FLAG} {name} is no JSON ({error}): write {FORM}") from error


def inspected(
    name: str, values: Any, model: LanguageModel, text: str | list[int]
) -> tuple[Inspection, frozenset[int]]:
    """Returns (what the changed model does with a text, layers without a mask).

    Args:
      name: of the file.
      values: of `read`.
      model: runs the text, and those from which activations are swapped in.
      text: or its ids.

    Raises:
      UserError: if an entry of the file has another form, or the model has no place for it; or for
        the text.
    """
    from gpt2_jax.interpret.interventions import InterventionError, InterventionFormError, parse

    # A file names the other text itself, and `parse` an id of its run.
    sources: dict[str, str | list[int]] = {}
    swaps = values.get("swaps") if isinstance(values, dict) else None
    try:
        if isinstance(swaps, list):
            named = [_named(swap, f"swaps[{i}]", sources) for i, swap in enumerate(swaps)]
            values = values | {"swaps": named}
        changed = parse(values, lambda source: model.inspect(sources[source]).run)
        return model.inspect(text, changed), frozenset(changed.unmasked)
    except InterventionError as error:
        form = f"; the form is {FORM}" if isinstance(error, InterventionFormError) else ""
        raise UserError(f"{_FLAG} {name}: {error}{form}") from error


def _named(swap: Any, entry: str, sources: dict[str, str | list[int]]) -> Any:
    """Returns a swap whose text, or ids, is one of the sources, by the name of its entry."""
    from gpt2_jax.interpret.interventions import InterventionFormError

    if not isinstance(swap, dict):
        return swap
    source = swap.get("from")
    source = source if isinstance(source, dict) else {}
    text = source.get("text", source.get("tokens"))
    if not isinstance(text, str | list):
        raise InterventionFormError(f"{entry} must be from a text or tokens")
    sources[entry] = text
    return {**swap, "from": {"run": entry, "position": source.get("position")}}
