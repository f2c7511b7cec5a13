"""Names the tokens whose ids are in the arrays of a lesson, which has no server to ask."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.stream import TOP
from gpt2_jax.interpret.text import pieces

_LISTED = 32
"""How many of the most probable next tokens have names."""


def words(inspection: Inspection, arrays: Mapping[str, str]) -> list[list[Any]]:
    """Returns [id, text] of each token that the page may have to name, in the order of ids.

    Args:
      inspection: of the text.
      arrays: of `lesson_arrays.packed`.
    """
    logits_V = inspection["logits"]
    ids = {*np.argsort(-logits_V, kind="stable")[:_LISTED].tolist()}
    for address, text in arrays.items():
        if not text.startswith("="):  # the same as another array
            ids.update(_ids_in(address, text))
    tokenizer = inspection.run.subject.tokenizer
    return [[token, pieces(tokenizer, [token])[0].text] for token in sorted(ids)]


def _ids_in(address: str, text: str) -> list[int]:
    name = address.partition("/")[0]
    if name not in ("lens", "lens_grid", "neuron"):
        return []
    array = np.load(io.BytesIO(gzip.decompress(base64.b64decode(text))), allow_pickle=False)
    found = {"lens": array[:, :TOP], "lens_grid": array[:, :1], "neuron": array[::2]}[name]
    return found[np.isfinite(found)].astype(int).tolist()
