"""Makes the answer of `/v1/completions` from what is drawn, as a whole or in chunks."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from gpt2_jax.serve.completions import Plan
from gpt2_jax.serve.errors import to_json
from gpt2_jax.serve.job import Job
from gpt2_jax.serve.logprobs import Assembler, Piece, lists
from gpt2_jax.serve.served import Served


class Answer:
    """Makes the JSON of one request's choices, as a whole or in chunks."""

    def __init__(self, model: Served, plan: Plan) -> None:
        """Starts before the first token.

        Args:
          model, plan: what is answered.
        """
        self._model, self._plan = model, plan
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": model.fingerprint,
            "seed": plan.seed,
        }
        self._drawn = 0
        self._assemblers: list[Assembler] = []
        values = plan.values
        for request, text in zip(plan.requests, plan.prompt_texts, strict=True):
            self._assemblers += [
                Assembler(
                    model.tokenizer,
                    request.prompt,
                    prompt_text=text,
                    echo=values["echo"],
                    ends=request.options.ends(model.tokenizer.ends),
                    listed=values["logprobs"] is not None,
                )
                for _ in range(request.num_choices)
            ]

    async def pieces(self, job: Job) -> AsyncIterator[tuple[int, Piece]]:
        """Yields (index, piece) of all choices as they grow."""
        while updates := await job.next():
            for update in updates:
                self._drawn += len(update.tokens)
                yield update.index, self._assemblers[update.index].take(update)

    async def whole(self, job: Job) -> bytes:
        """Returns the answer as JSON when all choices are finished."""
        wholes = [Piece() for _ in self._assemblers]
        async for index, piece in self.pieces(job):
            wholes[index].add(piece)
        # Log-probabilities of long texts are megabytes, for which the event loop must not wait.
        return await asyncio.to_thread(self._to_json, wholes)

    def _to_json(self, wholes: Sequence[Piece]) -> bytes:
        # One by one, because the encoder lets no other thread run until it is done.
        choices = [to_json(self._choice(index, piece)) for index, piece in enumerate(wholes)]
        head, usage = to_json(self._head).removesuffix(b"}"), to_json(self.usage())
        return b'%b,"choices":[%b],"usage":%b}' % (head, b",".join(choices), usage)

    def chunk(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """Returns a chunk of a stream, or None if the piece shows nothing."""
        shown = piece.text or piece.entries or piece.finish_reason
        if not shown and not (self._plan.values["return_token_ids"] and piece.tokens):
            return None
        return self._with_usage({**self._head, "choices": [self._choice(index, piece)]})

    def last_chunk(self) -> dict[str, Any] | None:
        """Returns the chunk with the usage, if it is asked for."""
        if not self._includes_usage:
            return None
        return {**self._head, "choices": [], "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """Returns how many tokens were read and drawn so far."""
        read = sum(len(request.prompt) for request in self._plan.requests)
        return {
            "prompt_tokens": read,
            "completion_tokens": self._drawn,
            "total_tokens": read + self._drawn,
        }

    @property
    def _includes_usage(self) -> bool:
        return bool((self._plan.values["stream_options"] or {}).get("include_usage"))

    def _with_usage(self, chunk: dict[str, Any]) -> dict[str, Any]:
        return {**chunk, "usage": None} if self._includes_usage else chunk

    def _choice(self, index: int, piece: Piece) -> dict[str, Any]:
        listed = self._plan.values["logprobs"] is not None
        found = lists(piece.entries, self._model.names) if listed else None
        choice = {
            "index": index,
            "text": piece.text,
            "logprobs": found,
            "finish_reason": piece.finish_reason,
        }
        if self._plan.values["return_token_ids"]:
            choice["token_ids"] = piece.tokens
            choice["prompt_token_ids"] = piece.prompt_tokens or None
        return choice
