"""Makes a one-file lesson: the explorer's page with the arrays of one text, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.text import takes_text
from gpt2_jax.serve.bundle import bundle
from gpt2_jax.serve.languages import LANGUAGES
from gpt2_jax.serve.lesson_arrays import focus_of, packed
from gpt2_jax.serve.lesson_words import words

MOST_BYTES = 1_600_000
"""How many characters the arrays of a lesson may take; the page itself has about 200,000."""
_STATIC = Path(__file__).parent / "static"
_VERSION = 1


def lesson(
    inspection: Inspection,
    state: Mapping[str, Any],
    language: str = LANGUAGES[0],
    *,
    most_bytes: int = MOST_BYTES,
    folder: Path = _STATIC,
) -> bytes:
    """Returns lesson.html, which opens from a disk and loads nothing.

    A text with more arrays than there is room for has those near what the page opens with (see
    `lesson_arrays`), and the page says so.

    Args:
      inspection: of the text.
      state: of the page when it opens, as `app.state` of its main.js: `model`, `step`, `layer`,
        `head`, `query`, `key` and others.
      language: of the page, of `LANGUAGES`; the reader can switch.
      most_bytes: room for the arrays.
      folder: of the page's files.
    """
    summary = inspection.summary()
    focus = focus_of(state, len(inspection.tokens))
    arrays, left_out = packed(inspection, focus, most_bytes)
    named = {"run": "lesson", "model": state.get("model", ""), "step": state.get("step")}
    embedded = {
        "version": _VERSION,
        "state": {
            "tokens": [int(token) for token in inspection.tokens],
            **state,
            "language": language,
        },
        "summary": {**summary, **named},
        "models": [
            {
                "id": named["model"],
                "takes_text": takes_text(inspection.run.subject.tokenizer),
                "max_tokens": len(inspection.tokens),
                "steps": [],
            }
        ],
        "views": inspection.views(),
        "words": words(inspection, arrays),
        "arrays": arrays,
        "left_out": left_out,
    }
    return bundle(folder, embedded, language)
