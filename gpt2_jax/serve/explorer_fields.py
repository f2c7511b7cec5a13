"""Describes the explorer's requests, and makes what they say into what `interpret` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt2_jax.interpret.interventions import SITES
from gpt2_jax.interpret.training_step import OPTIMIZERS
from gpt2_jax.serve import kinds as k
from gpt2_jax.serve.errors import ApiError, wrong
from gpt2_jax.serve.fields import Field
from gpt2_jax.serve.runs import RUN_ID

MOST_CHANGES = 4096
"""The most heads, neurons or swaps of one run."""
_STEP = k.integer(0, 2**53)
_INDEX = k.integer(0, 2**31 - 1)
_FACTOR = k.number(-100, 100)


def _rows(**columns: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the schema and the check of a list of rows.

    Args:
      columns: what each holds, by the name that errors call it.
    """

    def check(name: str, value: Any) -> list[list[float]]:
        _check_list(name, value)
        for i, row in enumerate(value):
            entry = f"{name}[{i}]"
            if type(row) is not list or len(row) != len(columns):
                raise wrong(name, f"{entry} must be a list of {', '.join(columns)}")
            for (part, column), item in zip(columns.items(), row, strict=True):
                column["check"](f"the {part} of {entry}", item)
        return value

    row = {
        "type": "array",
        "prefixItems": [column["schema"] for column in columns.values()],
        "minItems": len(columns),
        "maxItems": len(columns),
    }
    return {"schema": {"type": "array", "items": row, "maxItems": MOST_CHANGES}, "check": check}


def _listed(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the schema and the check of a list."""

    def check(name: str, value: Any) -> list[Any]:
        _check_list(name, value)
        return [item["check"](f"{name}[{i}]", each) for i, each in enumerate(value)]

    schema = {"type": "array", "items": item["schema"], "maxItems": MOST_CHANGES}
    return {"schema": schema, "check": check, "fields": item.get("fields", ())}


def _check_list(name: str, value: Any) -> None:
    if type(value) is not list or len(value) > MOST_CHANGES:
        raise wrong(name, f"{name} must be a list of at most {MOST_CHANGES}")


def _run() -> dict[str, Any]:
    """Returns the schema and the check of the id of a run."""
    text = k.string()

    def check(name: str, value: Any) -> str:
        if not RUN_ID.fullmatch(text["check"](name, value)):
            raise wrong(name, f"{name} must be the id of a run: 32 hexadecimal digits")
        return value

    return {"schema": {"type": "string", "pattern": f"^{RUN_ID.pattern}$"}, "check": check}


_FROM = (
    Field("run", "The run of the other text.", **_run(), required=True),
    Field("position", "In the other text.", **_INDEX, required=True),
)
_SWAP = (
    Field("site", "What is put in.", **k.one_of(*SITES), required=True),
    Field("layer", "Of the block.", **_INDEX, required=True),
    Field("head", "For z.", **_INDEX, default=0),
    Field("position", "In this text.", **_INDEX, required=True),
    Field("from", "Where it is from.", **k.nested(_FROM), required=True),
)
_INTERVENTIONS = (
    Field("heads", "[[layer, head, factor]].", **_rows(layer=_INDEX, head=_INDEX, factor=_FACTOR)),
    Field("mlps", "[[layer, factor]].", **_rows(layer=_INDEX, factor=_FACTOR)),
    Field(
        "neurons",
        "[[layer, neuron, factor]].",
        **_rows(layer=_INDEX, neuron=_INDEX, factor=_FACTOR),
    ),
    Field("unmasked", "Layers without the causal mask.", **_listed(_INDEX)),
    Field("swaps", "Activations of other texts.", **_listed(k.nested(_SWAP))),
)
_MODEL = Field("model", "One of /explore/v1/models; by default the first.", **k.string())
_TEXT = Field("text", "The text; an empty one is where texts begin.", **k.string())
_TOKENS = Field("tokens", "Token ids in place of a text.", **k.id_list())
RUN_FIELDS = (
    _MODEL,
    _TEXT,
    _TOKENS,
    Field("step", "A saved step; by default the one that is served.", **_STEP),
    Field("interventions", "What is changed in the model.", **k.nested(_INTERVENTIONS)),
)
"""The fields of `/explore/v1/run`."""
CURVES_FIELDS = (_MODEL, _TEXT, _TOKENS)
"""The fields of `/explore/v1/curves`."""
COMPARE_FIELDS = (
    Field("a", "A run.", **_run(), required=True),
    Field("b", "Another run.", **_run(), required=True),
)
"""The fields of `/explore/v1/compare`."""
TRAIN_STEP_FIELDS = (
    _MODEL,
    _TEXT,
    _TOKENS,
    Field("step", "A saved step; by default the one that is served.", **_STEP),
    Field(
        "optimizer",
        "How the parameters are changed.",
        **k.one_of(*sorted(OPTIMIZERS)),
        default="adamw",
    ),
    Field("learning_rate", "Of the step.", **k.number(0, 10, above=True), default=1e-3),
)
"""The fields of `/explore/v1/train_step`."""


def text_or_tokens(values: Mapping[str, Any]) -> str | list[int]:
    """Returns the text of a request, or its ids.

    Raises:
      ApiError: 400 unless there is exactly one of both, or for an empty list.
    """
    text: str | None = values["text"]
    tokens: list[int] | None = values["tokens"]
    if text is not None and tokens is not None:
        raise wrong("tokens", "tokens must be null where there is a text")
    if text is not None:
        return text
    if tokens is None:
        raise ApiError(400, "text is missing", param="text", code="missing_field")
    if not tokens:
        raise wrong("tokens", "tokens must hold at least one id")
    return tokens
