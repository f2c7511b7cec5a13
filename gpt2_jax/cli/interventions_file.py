"""Reads the changes inside of a model that `--interventions FILE` lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpt2_jax.cli.texts import read_text
from gpt2_jax.errors import UserError

if TYPE_CHECKING:
    from gpt2_jax.interpret.inspection import Inspection
    from gpt2_jax.interpret.interventions import Interventions

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


def interventions(values: Any, inspect: Callable[[str | list[int]], Inspection]) -> Interventions:
    """Returns what a file describes.

    Args:
      values: of `read`.
      inspect: runs a text, or ids, from which an activation is swapped in.

    Raises:
      UserError: if a part has another form.
    """
    from gpt2_jax.interpret.interventions import parse

    # A file names the other text itself, and `parse` an id of its run.
    sources: dict[str, str | list[int]] = {}
    swaps = values.get("swaps") if isinstance(values, dict) else None
    if isinstance(swaps, list):
        values = values | {"swaps": [_named(swap, sources) for swap in swaps]}
    try:
        return parse(values, lambda name: inspect(sources[name]).run)
    except UserError as error:
        raise UserError(f"{_FLAG}: {error}; the form is {FORM}") from error


def _named(swap: Any, sources: dict[str, str | list[int]]) -> Any:
    """Returns a swap whose text, or ids, is one of the sources, by a name."""
    source = swap.get("from") if isinstance(swap, dict) else None
    if not isinstance(source, dict):
        return swap
    text = source.get("text", source.get("tokens"))
    if not isinstance(text, str | list):
        raise UserError(f"{_FLAG}: a swap is from a text or tokens, as in {FORM}")
    name = str(len(sources))
    sources[name] = text
    return {**swap, "from": {"run": name, "position": source.get("position")}}
