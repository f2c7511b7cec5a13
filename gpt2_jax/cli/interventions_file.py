"""Reads the changes inside of a model that `--interventions FILE` lists."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gpt2_jax.cli.texts import read_text
from gpt2_jax.errors import UserError, did_you_mean, short_repr

if TYPE_CHECKING:
    from gpt2_jax.interpret.inspection import Inspection
    from gpt2_jax.interpret.interventions import Interventions, Swap

FORM = (
    '{"heads": [[LAYER, HEAD, FACTOR]], "mlps": [[LAYER, FACTOR]], "neurons": [[LAYER, NEURON, '
    'FACTOR]], "unmasked": [LAYER], "swaps": [{"site": "resid_post", "layer": 0, "position": 1, '
    '"from": {"text": TEXT, "position": 1}}]}'
)
"""What such a file holds; every part may be missing."""
_KEYS = ("heads", "mlps", "neurons", "unmasked", "swaps")
_SITES = ("resid_post", "mlp", "z")
_FLAG = "--interventions"


def read(name: str) -> Mapping[str, Any]:
    """Returns the content of a file.

    Raises:
      UserError: if it cannot be read, is no JSON object or has an unknown key.
    """
    try:
        values = json.loads(read_text(name, _FLAG))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{_FLAG} {name} is no JSON ({error}): write {FORM}") from error
    if not isinstance(values, dict):
        raise UserError(f"{_FLAG} {name} must be a JSON object such as {FORM}")
    for key in values:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"; the keys are {', '.join(_KEYS)}"
            raise UserError(f"{_FLAG} {name}: unknown key {short_repr(key)}{hint}")
    return values


def interventions(
    values: Mapping[str, Any], inspect: Callable[[str | list[int]], Inspection]
) -> Interventions:
    """Returns what a file describes.

    Args:
      values: of `read`.
      inspect: runs a text, or ids, from which an activation is swapped in.

    Raises:
      UserError: if a part has another form.
    """
    from gpt2_jax.interpret.interventions import Interventions

    return Interventions(
        heads={(row[0], row[1]): row[2] for row in _rows(values, "heads", 3)},
        mlps={row[0]: row[1] for row in _rows(values, "mlps", 2)},
        neurons={(row[0], row[1]): row[2] for row in _rows(values, "neurons", 3)},
        unmasked=tuple(_index("unmasked", each) for each in _list(values, "unmasked")),
        swaps=tuple(_swap(each, inspect) for each in _list(values, "swaps")),
    )


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key, [])
    if not isinstance(found, list):
        raise UserError(f"{_FLAG}: {key} must be a list, as in {FORM}")
    return found


def _rows(values: Mapping[str, Any], key: str, width: int) -> list[list[Any]]:
    rows = []
    for row in _list(values, key):
        if not isinstance(row, list) or len(row) != width:
            raise UserError(f"{_FLAG}: {key} must hold lists of {width} numbers, as in {FORM}")
        *places, factor = row
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            raise UserError(f"{_FLAG}: {key} has the factor {short_repr(factor)}: write a number")
        if not math.isfinite(factor):
            raise UserError(f"{_FLAG}: {key} has the factor {factor}, which is not finite")
        rows.append([*(_index(key, place) for place in places), float(factor)])
    return rows


def _index(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{_FLAG}: {key} counts from 0, and {short_repr(value)} is no such number")
    return value


def _swap(value: Any, inspect: Callable[[str | list[int]], Inspection]) -> Swap:
    from gpt2_jax.interpret.interventions import Swap

    origin = value.get("from") if isinstance(value, dict) else None
    if not isinstance(origin, dict) or value.get("site") not in _SITES:
        raise UserError(f"{_FLAG}: a swap needs a site of {', '.join(_SITES)}, as in {FORM}")
    layer, head = (_index(f"swaps.{key}", value.get(key, 0)) for key in ("layer", "head"))
    place, position = _index("swaps.position", value.get("position")), origin.get("position")
    position = _index("swaps.from.position", position)
    text = origin.get("text", origin.get("tokens"))
    if not isinstance(text, str | list):
        raise UserError(f"{_FLAG}: a swap is from a text or tokens, as in {FORM}")
    other = inspect(text)
    if value["site"] == "mlp":
        donor = other[f"mlp_out/{layer}/{position}"]
    elif value["site"] == "resid_post":
        residual = other[f"residual/{position}"]
        if layer >= len(residual) // 2:
            raise UserError(f"{_FLAG}: a swap's layer must be below {len(residual) // 2}")
        donor = residual[2 * layer + 2]
    else:
        z_TxK = other[f"z/{layer}/{head}"]
        if position >= len(z_TxK):
            raise UserError(f"{_FLAG}: a swap's from.position must be below {len(z_TxK)}")
        donor = z_TxK[position]
    return Swap(value["site"], layer, place, donor, head)
