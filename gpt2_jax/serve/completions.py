"""Plans and answers `/v1/completions`: all prompts and choices of one request."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.inference.generate import CONTEXT_OVERFLOW, encode_prompt
from gpt2_jax.inference.prefill import MOST_LOGPROBS
from gpt2_jax.inference.requests import Request
from gpt2_jax.inference.sampling import MOST_BIASES, MOST_ENDS, SamplingOptions
from gpt2_jax.serve import fields as f
from gpt2_jax.serve.errors import ApiError, wrong
from gpt2_jax.serve.fields import Field
from gpt2_jax.serve.job import Job
from gpt2_jax.serve.logprobs import Assembler, Piece, lists
from gpt2_jax.serve.served import Served
from gpt2_jax.tokenizers.ids import IdsTokenizer

_STREAM_OPTIONS = (
    Field("include_usage", "Send a last chunk with the usage.", **f.boolean(), default=False),
    Field("include_obfuscation", "Is ignored.", **f.anything()),
)
FIELDS = (
    Field("model", "One of /v1/models.", **f.string(), required=True),
    Field(
        "prompt",
        "A text, token ids, or a list of either; empty for the end of text.",
        **f.texts_or_ids(alone=True),
        default=[""],
    ),
    Field("max_tokens", "The most tokens to draw; 0 only with echo.", **f.integer(0), default=16),
    Field("n", "Choices of each prompt.", **f.integer(1, f.MOST_CHOICES), default=1),
    Field("temperature", "0 is greedy.", **f.number(0, 2), default=1.0),
    Field("top_p", "Keep the fewest tokens of this probability.", **f.number(0, 1), default=1.0),
    Field("top_k", "Keep so many tokens; 0 and -1 keep all.", **f.integer(-1), default=0),
    Field("min_p", "Keep tokens so probable beside the best.", **f.number(0, 1), default=0.0),
    Field(
        "presence_penalty", "Subtract from tokens generated before.", **f.number(-2, 2), default=0.0
    ),
    Field("frequency_penalty", "Subtract for each time generated.", **f.number(-2, 2), default=0.0),
    Field(
        "repetition_penalty",
        "Divide the logits of tokens in prompt and text.",
        **f.number(0, 10, above=True),
        default=1.0,
    ),
    Field("no_repeat_ngram_size", "Let no n-gram occur twice.", **f.integer(0), default=0),
    Field("logit_bias", "{id: added to its logit}.", **f.biases(MOST_BIASES), default={}),
    Field("logprobs", "List tokens, with so many alternatives.", **f.integer(0, MOST_LOGPROBS)),
    Field("echo", "Begin the text with the prompt.", **f.boolean(), default=False),
    Field("stream", "Answer in server-sent events.", **f.boolean(), default=False),
    Field("stream_options", "Only with stream.", **f.nested(_STREAM_OPTIONS)),
    Field("stop", "Strings that end a text, without them.", **f.stop_strings(), default=[]),
    Field("seed", "Repeats an answer; the one used is returned.", **f.seed()),
    Field("best_of", "Must equal n.", **f.integer(1, f.MOST_CHOICES)),
    Field("suffix", "Must be null.", **f.refused("is not supported: a text can only go on")),
    Field("user", "Is ignored.", **f.anything()),
    Field("ignore_eos", "Let no end of text end the text.", **f.boolean(), default=False),
    Field("stop_token_ids", "Further ids that end it.", **f.id_list(), default=[]),
    Field("return_token_ids", "Add the ids to each choice.", **f.boolean(), default=False),
    Field(
        "context_overflow",
        "At the end of the positions: refuse the request, or go on behind the last half.",
        **f.one_of(*CONTEXT_OVERFLOW),
        default="error",
    ),
)
"""The fields of a request."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Holds a request that was found valid.

    Attributes:
      requests: one for each prompt.
      prompt_texts: of each.
      values: of `FIELDS`.
      seed: the one that is used.
    """

    requests: list[Request]
    prompt_texts: list[str]
    values: Mapping[str, Any]
    seed: int

    @property
    def stream(self) -> bool:
        """Returns whether it is answered in events."""
        return self.values["stream"]


def plan(model: Served, values: Mapping[str, Any]) -> Plan:
    """Returns what a request asks of a model, checked as a whole; it may take long to encode.

    Args:
      model: that is asked.
      values: checked one by one.

    Raises:
      ApiError: 400 with the field that is wrong.
    """
    _check_together(values)
    options = _options(values)
    seed = values["seed"]
    if seed is None:
        seed = secrets.randbits(32)  # as many as `gpt2-jax sample --seed` takes
    requests, texts = [], []
    if values["stop"] and isinstance(model.tokenizer, IdsTokenizer):
        raise wrong("stop", model.tokenizer.no_stop)
    for number, prompt in enumerate(values["prompt"]):
        tokens = prompt_ids(model, "prompt", prompt)
        request = Request(
            tokens,
            values["max_tokens"],
            options,
            stop=values["stop"],
            seed=seed,
            num_choices=values["n"],
            first_choice=number * values["n"],
            logprobs=values["logprobs"] is not None,
            prompt_logprobs=_reads_prompt(values),
            slide=values["context_overflow"] == "slide",
        )
        _check_ids(model, request)
        _check_length(model, request)
        try:
            model.worker.check(request)
        except UserError as error:
            raise wrong(None, str(error)) from None
        requests.append(request)
        texts.append(prompt if isinstance(prompt, str) else model.tokenizer.decode(tokens))
    return Plan(requests, texts, values, seed)


def _reads_prompt(values: Mapping[str, Any]) -> bool:
    # Without new tokens the engine has nothing else to do.
    return values["echo"] and (values["logprobs"] is not None or not values["max_tokens"])


def _check_together(values: Mapping[str, Any]) -> None:
    """Checks fields that depend on one another."""
    n, prompts = values["n"], len(values["prompt"])
    if n * prompts > f.MOST_PROMPTS:
        raise wrong(
            "n", f"n={n} for {prompts} prompts are more than {f.MOST_PROMPTS} choices: ask for less"
        )
    if values["best_of"] not in (None, n):
        raise wrong("best_of", f"best_of must equal n={n}, not {values['best_of']}")
    if values["stream_options"] is not None and not values["stream"]:
        raise wrong("stream_options", "stream_options needs stream=true")
    if not values["max_tokens"] and not values["echo"]:
        raise wrong("max_tokens", "max_tokens=0 needs echo=true: otherwise there is no text")
    if len(values["stop_token_ids"]) > MOST_ENDS:
        raise wrong("stop_token_ids", f"stop_token_ids must be at most {MOST_ENDS} ids")


def _options(values: Mapping[str, Any]) -> SamplingOptions:
    names = {field.name for field in dataclasses.fields(SamplingOptions)}
    chosen = {name: value for name, value in values.items() if name in names}
    chosen["top_k"] = max(0, values["top_k"])
    if values["temperature"] < 1e-30:
        chosen["temperature"] = 0.0  # the quotient would not be finite
    try:
        return SamplingOptions(**chosen)
    except UserError as error:
        name = str(error).partition(" ")[0].partition("[")[0]
        raise wrong(name if name in names else None, str(error)) from None


def prompt_ids(model: Served, name: str, prompt: str | list[int]) -> list[int]:
    """Returns the ids of a prompt.

    Raises:
      ApiError: 400 if it cannot be encoded, or has ids that the model does not know.
    """
    if isinstance(prompt, str):
        try:
            # Encoding takes time, and nothing that is so long can fit.
            if len(prompt) > model.worker.max_length * model.longest_token:
                raise wrong(
                    name,
                    f"{name} of {len(prompt)} characters is more than {model.worker.max_length} "
                    "tokens: shorten it",
                )
            return encode_prompt(model.tokenizer, prompt)
        except UserError as error:
            raise wrong(name, str(error)) from None
    check_range(model, name, prompt)
    return prompt


def check_range(model: Served, name: str, tokens: Sequence[int]) -> None:
    """Raises ApiError for an id that the model does not know."""
    size = model.tokenizer.vocab_size
    unknown = next((token for token in tokens if not 0 <= token < size), None)
    if unknown is not None:
        raise wrong(
            name,
            f"{name} has the token id {str(unknown)[:30]}, but ids are from 0 to {size - 1}",
        )


def _check_ids(model: Served, request: Request) -> None:
    check_range(model, "stop_token_ids", request.options.stop_token_ids)
    check_range(model, "logit_bias", [*dict(request.options.logit_bias)])


def _check_length(model: Served, request: Request) -> None:
    count, most = len(request.prompt), model.worker.max_length
    if request.slide:
        if count >= most:
            raise wrong("prompt", f"prompt of {count} tokens leaves no room in {most}: shorten it")
        return
    if count + request.max_new_tokens > most:
        alone = count + min(1, request.max_new_tokens) > most
        raise ApiError(
            400,
            f"prompt of {count} tokens and max_tokens={request.max_new_tokens} exceed the "
            f"{most} tokens of this model: " + ("shorten the prompt" if alone else "ask for less"),
            param="prompt" if alone else "max_tokens",
            code="context_length_exceeded",
        )


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
            ends = {*request.options.stop_token_ids}
            if not request.options.ignore_eos:
                ends |= model.tokenizer.ends
            self._assemblers += [
                Assembler(
                    model.tokenizer,
                    request.prompt,
                    prompt_text=text,
                    echo=values["echo"],
                    ends=ends,
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

    async def whole(self, job: Job) -> dict[str, Any]:
        """Returns the answer when all choices are finished."""
        wholes = [Piece() for _ in self._assemblers]
        async for index, piece in self.pieces(job):
            wholes[index].add(piece)
        choices = [self._choice(index, piece) for index, piece in enumerate(wholes)]
        return {**self._head, "choices": choices, "usage": self.usage()}

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
        most = self._plan.values["logprobs"]
        found = None if most is None else lists(piece.entries, self._model.names, most)
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
