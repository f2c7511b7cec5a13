"""Answers `/tokenize`, `/detokenize` and `/tokenizer_info`, as lm-eval's remote tokenizer asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.serve import kinds as k
from gpt2_jax.serve.errors import wrong
from gpt2_jax.serve.fields import Field
from gpt2_jax.serve.served import Served
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT

TOKENIZE_FIELDS = (
    Field("model", "One of /v1/models; by default the first.", **k.string()),
    Field("prompt", "A text, with names of special tokens.", **k.string(), required=True),
    Field("add_special_tokens", "Changes nothing: none are added.", **k.boolean(), default=True),
)
"""The fields of `/tokenize`."""
DETOKENIZE_FIELDS = (
    Field("model", "One of /v1/models; by default the first.", **k.string()),
    Field("tokens", "The ids.", **k.id_list(), required=True),
)
"""The fields of `/detokenize`."""


def tokenize(model: Served, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ids of a text.

    Raises:
      ApiError: 400 if it cannot be encoded.
    """
    try:
        tokens = model.names.encode(values["prompt"])
    except UserError as error:
        raise wrong("prompt", str(error)) from None
    return {"tokens": tokens, "count": len(tokens), "max_model_len": model.worker.max_length}


def detokenize(model: Served, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the text of ids.

    Raises:
      ApiError: 400 for an id that the model does not know.
    """
    try:
        return {"prompt": model.names.decode(values["tokens"])}
    except UserError as error:
        raise wrong("tokens", str(error)[:300]) from None


def tokenizer_info(model: Served) -> dict[str, Any]:
    """Returns which names begin and end a text; both are what `/tokenize` makes one id of."""
    named = {token: name for name, token in model.names.special.items()}
    eot, bos = model.tokenizer.eot, model.tokenizer.bos
    end = None if eot is None else named.get(eot, END_OF_TEXT)
    begin = "\n" if bos is None else model.names.name(bos)
    return {
        "tokenizer_class": model.tokenizer.name,
        "vocab_size": model.tokenizer.vocab_size,
        "model_max_length": model.worker.max_length,
        "eos_token": end,
        "bos_token": begin,
        "pad_token": None,
        "chat_template": None,
    }
