"""Plans and answers `/v1/completions`: all prompts and choices of one request."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.inference.generate import CONTEXT_OVERFLOW, encode_prompt
from gpt2_jax.inference.prefill import MOST_LOGPROBS
from gpt2_jax.inference.requests import Request
from gpt2_jax.inference.sampling import MOST_BIASES, SamplingOptions, settings_of
from gpt2_jax.serve import kinds as k
from gpt2_jax.serve.errors import too_long, wrong
from gpt2_jax.serve.fields import Field, shown
from gpt2_jax.serve.served import Served
from gpt2_jax.tokenizers.ids import IdsTokenizer


def _sampling(name: str, text: str) -> Field:
    """Returns the field of a number of `SamplingOptions`, with its range and default."""
    return Field(name, text, **k.sampling(name), default=getattr(SamplingOptions, name))


_STREAM_OPTIONS = (
    Field("include_usage", "Send a last chunk with the usage.", **k.boolean(), default=False),
    Field("include_obfuscation", "Is ignored.", **k.anything()),
)
FIELDS = (
    Field("model", "One of /v1/models.", **k.string(), required=True),
    Field(
        "prompt",
        "A text, token ids, or a list of either; empty for the end of text.",
        **k.texts_or_ids(alone=True),
        default=[""],
    ),
    Field("max_tokens", "The most tokens to draw; 0 only with echo.", **k.integer(0), default=16),
    Field("n", "Choices of each prompt.", **k.integer(1, k.MOST_CHOICES), default=1),
    _sampling("temperature", "0 is greedy."),
    _sampling("top_p", "Keep the fewest tokens of this probability."),
    _sampling("top_k", "Keep so many tokens; 0 and -1 keep all."),
    _sampling("min_p", "Keep tokens so probable beside the best."),
    _sampling("presence_penalty", "Subtract from tokens generated before."),
    _sampling("frequency_penalty", "Subtract for each time generated."),
    _sampling("repetition_penalty", "Divide the logits of tokens in prompt and text."),
    _sampling("no_repeat_ngram_size", "Let no n-gram occur twice."),
    Field("logit_bias", "{id: added to its logit}.", **k.biases(MOST_BIASES), default={}),
    Field("logprobs", "List tokens, with so many alternatives.", **k.integer(0, MOST_LOGPROBS)),
    Field("echo", "Begin the text with the prompt.", **k.boolean(), default=False),
    Field("stream", "Answer in server-sent events.", **k.boolean(), default=False),
    Field("stream_options", "Only with stream.", **k.nested(_STREAM_OPTIONS)),
    Field("stop", "Strings that end a text, without them.", **k.stop_strings(), default=[]),
    Field("seed", "Repeats an answer; the one used is returned.", **k.seed()),
    Field("best_of", "Must equal n.", **k.integer(1, k.MOST_CHOICES)),
    Field("suffix", "Must be null.", **k.refused("is not supported: a text can only go on")),
    Field("user", "Is ignored.", **k.anything()),
    Field("ignore_eos", "Let no end of text end the text.", **k.boolean(), default=False),
    Field("stop_token_ids", "Further ids that end it.", **k.id_list(), default=[]),
    Field("return_token_ids", "Add the ids to each choice.", **k.boolean(), default=False),
    Field(
        "context_overflow",
        "At the end of the positions: refuse the request, or go on behind the last half.",
        **k.one_of(*CONTEXT_OVERFLOW),
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
        name = "prompt" if len(values["prompt"]) == 1 else f"prompt[{number}]"
        tokens = prompt_ids(model, name, prompt)
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
            num_alternatives=values["logprobs"] or 0,
            slide=values["context_overflow"] == "slide",
        )
        _check_ids(model, request)
        _check_length(model, request, name)
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
    if n * prompts > k.MOST_PROMPTS:
        raise wrong(
            "n",
            f"n={n} for each of {prompts} prompts are {n * prompts} choices, of at most "
            f"{k.MOST_PROMPTS}: ask for fewer",
        )
    if values["best_of"] not in (None, n):
        raise wrong("best_of", f"best_of must equal n={n}, not {values['best_of']}")
    if values["stream_options"] is not None and not values["stream"]:
        raise wrong("stream_options", "stream_options needs stream=true")
    if not values["max_tokens"] and not values["echo"]:
        raise wrong("max_tokens", "max_tokens=0 needs echo=true: otherwise there is no text")


def _options(values: Mapping[str, Any]) -> SamplingOptions:
    names = {field.name for field in dataclasses.fields(SamplingOptions)}
    chosen = {name: value for name, value in values.items() if name in names}
    try:
        return SamplingOptions(**chosen)
    except UserError as error:
        name = str(error).partition(" ")[0].partition("[")[0]
        raise wrong(name if name in names else None, str(error)) from None


def prompt_ids(model: Served, name: str, prompt: str | list[int]) -> list[int]:
    """Returns the ids of a prompt.

    Args:
      model: that is asked.
      name: of the prompt in messages, a field or an entry of one.
      prompt: the text or the ids.

    Raises:
      ApiError: 400 if it cannot be encoded, or has ids that the model does not know.
    """
    if isinstance(prompt, str):
        try:
            # Encoding takes time, and nothing that is so long can fit.
            if len(prompt) > model.worker.max_length * model.longest_token:
                raise too_long(
                    name,
                    f"{name} of {len(prompt)} characters exceeds the {model.worker.max_length} "
                    "tokens of this model: shorten it",
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
            name, f"{name} has the token id {shown(unknown)}, but ids are from 0 to {size - 1}"
        )


def _check_ids(model: Served, request: Request) -> None:
    options, own = request.options, model.tokenizer.ends
    check_range(model, "stop_token_ids", options.stop_token_ids)
    check_range(model, "logit_bias", [*dict(options.logit_bias)])
    try:
        settings_of(options, own, request.seed)
    except UserError as error:
        raise wrong("stop_token_ids", str(error)) from None


def _check_length(model: Served, request: Request, name: str) -> None:
    count, most = len(request.prompt), model.worker.max_length
    if request.slide:
        if count >= most:
            raise too_long(
                name,
                f"{name} of {count} tokens leaves no room in the {most} tokens of this model, also "
                f"with context_overflow=slide: shorten it to {most - 1}",
            )
        return
    if count + request.max_new_tokens > most:
        alone = count + min(1, request.max_new_tokens) > most
        less = "ask for less, or send context_overflow=slide to go on beyond them"
        raise too_long(
            name if alone else "max_tokens",
            f"{name} of {count} tokens and max_tokens={shown(request.max_new_tokens)} exceed the "
            f"{most} tokens of this model: {'shorten the prompt' if alone else less}",
        )
