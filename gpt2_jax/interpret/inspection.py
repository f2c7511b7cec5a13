"""Offers what a model did with a text by addresses, to Python and to the server."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Any

import numpy as np

from gpt2_jax.interpret import views
from gpt2_jax.interpret.run import Run
from gpt2_jax.interpret.stream import TOP, predicted
from gpt2_jax.interpret.text import listed, pieces, short

_TOP_OF_TOKEN = 5


class Inspection:
    """Gives out the arrays of one text by their addresses, such as `inspection["row/3/1/12"]`.

    Attributes:
      run: the text in the model.
    """

    def __init__(self, run: Run) -> None:
        """Takes a run."""
        self.run = run

    @property
    def tokens(self) -> list[int]:
        """Returns the ids of the text."""
        return self.run.tokens

    @property
    def num_bytes(self) -> int:
        """Returns the bytes that are kept: of the run, and of its summary once there is one."""
        return self.run.num_bytes + (self._summary_bytes if "_summary" in vars(self) else 0)

    @functools.cached_property
    def _summary_bytes(self) -> int:
        return _size(self._summary)

    def __getitem__(self, address: str) -> np.ndarray:
        """Returns the array of an address; `views()` lists them.

        Raises:
          UserError: if there is no such address, or a number in it is out of range.
        """
        return views.compute(self.run, address)

    def views(self) -> list[dict[str, str]]:
        """Returns the address, dtype, shape and formula of every view that the model has."""
        return views.listed(views.views_of(self.run.subject.config))

    def summary(self) -> dict[str, Any]:
        """Returns what is known of each token, what comes next, and the model's config, for JSON.

        It is computed once, and must not be changed.

        Log-probabilities and entropies are in nats; a token's `logprob` and `rank` are given those
        before it, and None for the first; its `entropy` and `top` are of the token behind it.
        """
        return self._summary

    @functools.cached_property
    def _summary(self) -> dict[str, Any]:
        found = predicted(self.run, row=-1, count=TOP)
        tokenizer = self.run.subject.tokenizer
        entries = []
        for t, piece in enumerate(pieces(tokenizer, self.tokens)):
            top = listed(tokenizer, found.top_ids[t], found.top_logprobs[t])
            entries.append(
                {
                    "id": self.tokens[t],
                    "text": piece.text,
                    "bytes": list(piece.data),
                    "start": piece.start,
                    "logprob": short(found.logprob[t - 1]) if t else None,
                    "rank": int(found.rank[t - 1]) if t else None,
                    "entropy": short(found.entropy[t]),
                    "top": top[:_TOP_OF_TOKEN],
                }
            )
        return {
            "tokens": entries,
            "next": listed(tokenizer, found.top_ids[-1], found.top_logprobs[-1]),
            "config": self._config(),
            "fingerprint": self.run.subject.fingerprint,
            "max_tokens": self.run.subject.longest,
        }

    def _config(self) -> dict[str, Any]:
        config = self.run.subject.config
        values = {
            field.name: getattr(config, field.name)
            for field in dataclasses.fields(config)
            if field.metadata["changes_function"]
        }
        derived = ("head_dim", "mlp_width", "score_scale", "is_gated")
        return values | {name: getattr(config, name) for name in derived}


def _size(value: Any) -> int:
    """Returns the bytes of a value of JSON, without the keys, which all of its objects share."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sys.getsizeof(value) + sum(map(_size, parts))
