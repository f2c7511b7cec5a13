"""Describes the explorer's paths as OpenAPI does; see `description`."""

from __future__ import annotations

from typing import Any

from gpt2_jax.serve import explorer_fields as f
from gpt2_jax.serve.fields import object_schema
from gpt2_jax.serve.languages import LANGUAGES
from gpt2_jax.serve.openapi_parts import (
    BODY,
    BOOLEAN,
    COMMON,
    INTEGER,
    NUMBER,
    STRING,
    get,
    in_path,
    in_query,
    list_of,
    object_of,
    or_null,
    post,
)

_FILE = (400, 403, 404)
_WORK = (429, 503)
_BEST = list_of({"type": "array", "items": {"anyOf": [STRING, NUMBER]}})  # [id, text, probability]
_TOKEN = object_of(
    id=INTEGER,
    text=STRING,
    bytes=list_of(INTEGER),
    start=INTEGER,
    logprob=or_null(NUMBER),
    rank=or_null(INTEGER),
    entropy=NUMBER,
    top=_BEST,
)
_KNOB = {"anyOf": [STRING, NUMBER, BOOLEAN, {"type": "null"}]}
_BYTES = {"type": "object", "additionalProperties": INTEGER}
_HEAD_SCORES = list_of(list_of(list_of(NUMBER)))
_SLOT = object_of(busy=BOOLEAN, prompt_tokens=INTEGER, drawn=INTEGER, length=INTEGER)
SCHEMAS: dict[str, dict[str, Any]] = {
    "ExplorerModels": list_of(
        object_of(
            id=STRING,
            takes_text=BOOLEAN,
            tokenizer=STRING,
            ends=list_of(INTEGER),
            max_tokens=INTEGER,
            step=INTEGER,
            steps=list_of(INTEGER),
            path=STRING,
            ema=BOOLEAN,
        )
    ),
    "Steps": object_of(model=STRING, step=INTEGER, steps=list_of(INTEGER), loaded=list_of(INTEGER)),
    "Engine": object_of(
        model=STRING,
        state=STRING,
        slots=list_of(_SLOT),
        queued=INTEGER,
        waiting=INTEGER,
        prefilling=list_of(object_of(done=INTEGER, total=INTEGER)),
        chunk=INTEGER,
        max_length=INTEGER,
        cache=object_of(used_bytes=INTEGER, total_bytes=INTEGER),
    ),
    "Words": _BEST,
    "Views": list_of(object_of(address=STRING, dtype=STRING, shape=STRING, formula=STRING)),
    "Card": object_of(
        parts=list_of(object_of(name=STRING, formula=STRING, count=INTEGER)),
        parameters=INTEGER,
        bytes=_BYTES,
        cache_bytes_per_token=INTEGER,
        sizes=list_of(
            object_of(
                name=STRING,
                num_layers=INTEGER,
                num_heads=INTEGER,
                d_model=INTEGER,
                parameters=INTEGER,
                bytes=_BYTES,
            )
        ),
    ),
    "CurvesRequest": object_schema(f.CURVES_FIELDS),
    "CompareRequest": object_schema(f.COMPARE_FIELDS),
    "Comparison": object_of(
        ("kl", "next", "head_scores", "bytes"),
        aligned={"type": "string", "enum": ["tokens", "bytes"]},
        kl=list_of(NUMBER),
        next=_BEST,
        head_scores=or_null(_HEAD_SCORES),
        bytes=list_of(list_of(NUMBER)),
    ),
    "TrainStepRequest": object_schema(f.TRAIN_STEP_FIELDS),
    "TrainStep": object_of(
        predictions=list_of(
            object_of(
                token=STRING,
                label=STRING,
                loss=NUMBER,
                probability=NUMBER,
                loss_after=NUMBER,
                probability_after=NUMBER,
            )
        ),
        loss=NUMBER,
        loss_after=NUMBER,
        gradient_norm=NUMBER,
        optimizer=STRING,
        learning_rate=NUMBER,
        next=_BEST,
        next_after=_BEST,
    ),
    "RunRequest": object_schema(f.RUN_FIELDS),
    "Run": object_of(
        run=STRING,
        model=STRING,
        step=INTEGER,
        fingerprint=STRING,
        tokens=list_of(_TOKEN),
        next=_BEST,
        config={"type": "object", "additionalProperties": _KNOB},
        max_tokens=INTEGER,
    ),
}
"""The schemas of what the explorer's requests send and are answered."""


def paths() -> dict[str, Any]:
    """Returns the explorer's paths."""
    return {**_files(), **_of_models(), **_of_runs(), **_of_texts()}


def _files() -> dict[str, Any]:
    page = get("Show the page.", None, _FILE)
    return {
        "/": _answering(page, "text/html", STRING),
        "/static/{path}": get("Give a file of the page.", None, _FILE, in_path("path")),
        "/docs/{document}": get("Give a document as a page.", None, _FILE, in_path("document")),
    }


def _of_models() -> dict[str, Any]:
    model, ids = in_query("model", STRING), in_query("ids", STRING)
    statuses = (*COMMON, 404, *_WORK)
    return {
        "/explore/v1/models": get(
            "List the models to look into.", "ExplorerModels", (*COMMON, *_WORK)
        ),
        "/explore/v1/steps": get("List the saved steps of a run.", "Steps", statuses, model),
        "/explore/v1/engine": get("Show the slots and the cache.", "Engine", (*COMMON, 404), model),
        "/explore/v1/words": get("Name tokens.", "Words", statuses, model, ids),
        "/explore/v1/card": get("Count the parameters.", "Card", statuses, model),
    }


def _of_runs() -> dict[str, Any]:
    statuses = (*COMMON, 404, 410, *_WORK)
    array = get(
        "Give an array as a file of NumPy's.",
        None,
        statuses,
        in_path("id"),
        in_path("address"),
    )
    lesson = get(
        "Give the page and the arrays of a run as one file.",
        None,
        statuses,
        in_path("id"),
        *(in_query(name, INTEGER) for name in ("layer", "head", "query", "key")),
        in_query("language", {"type": "string", "enum": [*LANGUAGES]}),
    )
    return {
        "/explore/v1/views": get(
            "List the arrays of a model's runs.", "Views", (*COMMON, 404), in_query("model", STRING)
        ),
        "/explore/v1/run": post("Run a text.", "RunRequest", "Run", (*BODY, 410, *_WORK)),
        "/explore/v1/run/{id}/{address}.npy": _answering(array, "application/octet-stream"),
        "/explore/v1/run/{id}/lesson.html": _answering(lesson, "text/html", STRING),
        "/explore/v1/compare": post(
            "Compare two runs of one text.",
            "CompareRequest",
            "Comparison",
            (*BODY, 410, *_WORK),
        ),
    }


def _of_texts() -> dict[str, Any]:
    curves = post(
        "Follow a text over the saved steps of a run.",
        "CurvesRequest",
        None,
        (*BODY, *_WORK),
    )
    lines = {
        "type": "string",
        "description": "A line for each step: step, loss, head_scores, kl; an Error if it fails on "
        "the way.",
    }
    return {
        "/explore/v1/curves": _answering(curves, "application/x-ndjson", lines),
        "/explore/v1/train_step": post(
            "Train a copy of the model on a text, one step.",
            "TrainStepRequest",
            "TrainStep",
            (*BODY, *_WORK),
        ),
    }


def _answering(path: dict[str, Any], kind: str, schema: Any = None) -> dict[str, Any]:
    """Returns a path whose answer is no JSON, but content of another kind."""
    (operation,) = path.values()
    operation["responses"]["200"]["content"] = {kind: {"schema": schema} if schema else {}}
    return path
