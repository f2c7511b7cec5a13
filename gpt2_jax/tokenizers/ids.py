"""The tokenizer of models whose own cannot be read: ids are their only text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers.base import Tokenizer, checked_ids


class IdsTokenizer(Tokenizer):
    """Decodes ids to their numbers, each after a space; encodes nothing."""

    def __init__(
        self,
        vocab_size: int,
        reason: str,
        bos: int | None = None,
        ends: Iterable[int] = (),
    ) -> None:
        """Takes what is known of the ids.

        Args:
          vocab_size: number of ids that the model has.
          reason: why the model's own tokenizer cannot be read.
          bos: the id that begins a text.
          ends: the ids that end a text.
        """
        self.name, self.vocab_size, self.eot, self.reason = "ids", vocab_size, None, reason
        self._bos, self._ends = bos, frozenset(ends)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> IdsTokenizer:
        """Rebuilds a tokenizer from what `to_dict` returned."""
        return cls(values["vocab_size"], values["reason"], values["bos"], values["ends"])

    @property
    def bos(self) -> int | None:
        """Returns the id that begins a text, or None if it is unknown."""
        return self._bos

    @property
    def ends(self) -> frozenset[int]:
        """Returns the ids that end a text."""
        return self._ends

    def encode_array(self, text: str) -> np.ndarray:
        """Raises UserError, because no text can be encoded."""
        self.refuse_text()

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Returns the ids in decimal, each after a space."""
        return "".join(f" {token}" for token in checked_ids(tokens, self)).encode()

    def byte_lengths(self) -> np.ndarray:
        """Raises UserError, because the bytes of a token are unknown."""
        self.refuse_text()

    def refuse_text(self) -> NoReturn:
        """Raises the UserError that says why the model takes no text."""
        raise UserError(
            f"this model takes token ids and no text ({self.reason}): give ids, as in "
            "`gpt2-jax sample --prompt_tokens 1,2,3`"
        )

    @property
    def no_stop(self) -> str:
        """Returns why no string ends a text, for an error: " 5" would end one at 57."""
        return (
            f"stop needs a model of text, and this one gives token ids ({self.reason}): use "
            "stop_token_ids, in Python or in a request to a server"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the name and what is known of the ids."""
        return {
            "name": self.name,
            "vocab_size": self.vocab_size,
            "reason": self.reason,
            "bos": self.bos,
            "ends": sorted(self.ends),
        }
