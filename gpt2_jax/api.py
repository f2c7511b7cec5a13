"""Offers the Python API: `load(M)`, then generate, stream, score, next_tokens, attention."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import arguments
from gpt2_jax.errors import UserError
from gpt2_jax.formats import load as load_lib
from gpt2_jax.formats.model import Model
from gpt2_jax.inference import bulk
from gpt2_jax.inference import generate as generate_lib
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.inference.text import Sample
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.interventions import NO_INTERVENTIONS, Interventions
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.model import lengths
from gpt2_jax.model.build import build_decoder
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.taps import VALUES
from gpt2_jax.parallel.compilation_cache import keep_compiled_programs
from gpt2_jax.tokenizers.base import checked_ids
from gpt2_jax.tokenizers.ids import IdsTokenizer


class NextToken(NamedTuple):
    """Holds a candidate for the next token: its text, id and probability."""

    text: str
    id: int
    probability: float


class Score(NamedTuple):
    """Holds the tokens of a text, and the log-probabilities (nats) of all but the first."""

    tokens: list[int]
    logprobs: list[float]


def load(model: str | Path, *, ema: bool = False, dtype: str | None = None) -> LanguageModel:
    """Returns a model, ready for use.

    From then on JAX keeps the programs that this process compiles, unless the user has set its
    cache otherwise; see `gpt2_jax.parallel.compilation_cache`.

    Args:
      model: a run's workdir (its newest good step is loaded), the folder of one step,
        `RUN/checkpoints/best`, a folder in Hugging Face's, OpenAI's or PEFT's format, or the id of
        a model on the Hugging Face hub.
      ema: whether to load the average of the parameters in their place, which a run with
        `optimizer.ema_decay` keeps.
      dtype: of weights and products: "float32", "bfloat16", which halves the bytes that are read
        for each token, or "auto", the faster one here; by default that of the model's config.

    Raises:
      UserError: if there is no such model, or it keeps no average that is asked for.
      StorageError: if no checkpoint is whole, or the step that was named is not.
    """
    path = arguments.path("model", model)
    ema = arguments.boolean("ema", ema)
    keep_compiled_programs()
    loaded = load_lib.load(path, ema=ema, dtype=dtype)
    return LanguageModel(loaded, lambda: load_lib.load(loaded.path, ema=ema).params)


class LanguageModel:
    """Generates and scores text with a model; no method changes it.

    Attributes:
      config: the whole config of the run that made the model.
      tokenizer: see `gpt2_jax.tokenizers.tokenizer.Tokenizer`.
      params: the parameters, unrolled over layers, in the compute dtype.
      step: the training step that they are of; 0 if it is unknown.
    """

    def __init__(self, model: Model, read_again: Callable[[], Any] | None = None) -> None:
        """Prepares a model for decoding.

        Args:
          model: as `gpt2_jax.formats.load` reads it.
          read_again: returns its parameters once more, which `inspect` needs where the compute
            dtype rounds them; by default they are kept for it.
        """
        self.config, self.tokenizer, self.step = model.config, model.tokenizer, model.step
        self._decoder = build_decoder(model.config.model, model.config.compute)
        self.params = generate_lib.decode_params(self._decoder, model.params)
        is_exact = model.config.compute.dtype == "float32"
        self._read_exact = None if is_exact else read_again or (lambda: model.params)

    def generate(
        self,
        prompt: str | Sequence[int] = "",
        *,
        num_samples: int = 1,
        max_new_tokens: int | None = None,
        options: SamplingOptions = SamplingOptions(),
        stop: Sequence[str] = (),
        seed: int = 0,
        num_slots: int | None = None,
        context_overflow: str = "error",
    ) -> list[Sample]:
        """Returns `num_samples` continuations of a prompt.

        Args:
          prompt: the text to continue, or its token ids; an empty text for an unconditional sample.
          num_samples: how many to generate, 10,000 at most.
          max_new_tokens: by default, as many as the context has room for; unless positions end
            there, more are possible.
          options: how each token is drawn.
          stop: strings that end a sample and are not part of it.
          seed: the same seed gives the same samples; from 0 to 2^32 - 1.
          num_slots: how many samples are generated at a time; by default all, up to 32. Bits of a
            sample depend on it.
          context_overflow: what happens to a text for which the model has no more positions:
            "error" refuses it at once, "slide" reads the last half of the text again and goes on.

        Raises:
          UserError: if the prompt is too long, has an id that is not in the vocabulary or is a
            text that cannot be encoded, or an argument has a wrong type or value.
        """
        count = arguments.integer("num_samples", num_samples, low=1, high=arguments.MOST_SAMPLES)
        tokens, strings = self._prompt(prompt, stop)
        return generate_lib.generate_text(
            self._decoder,
            self.params,
            self.tokenizer,
            [tokens] * count,
            max_new_tokens=max_new_tokens,
            options=options,
            stop=strings,
            seed=seed,
            num_slots=num_slots,
            context_overflow=context_overflow,
        )

    def generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        num_samples: int = 1,
        max_new_tokens: int | None = None,
        options: SamplingOptions = SamplingOptions(),
        stop: Sequence[str] = (),
        seed: int = 0,
        num_slots: int | None = None,
        context_overflow: str = "error",
        start: int = 0,
    ) -> Iterator[list[Sample]]:
        """Returns an iterator over the samples of each prompt, in the order of the prompts.

        Takes the arguments of `generate`, and checks them at once. `num_slots` is 8 by default;
        prompts before `start` are skipped, which changes nothing for the others.
        """
        count = arguments.integer("num_samples", num_samples, low=1, high=arguments.MOST_SAMPLES)
        return bulk.generate_many(
            self._decoder,
            self.params,
            self.tokenizer,
            [self.token_ids(prompt, f"prompts[{i}]") for i, prompt in enumerate(prompts)],
            num_samples=count,
            max_new_tokens=max_new_tokens,
            options=options,
            stop=self._stops(stop),
            seed=arguments.integer("seed", seed, low=0, high=arguments.LARGEST_SEED),
            num_slots=num_slots,
            context_overflow=context_overflow,
            start=arguments.integer("start", start, low=0),
        )

    def stream(
        self,
        prompt: str | Sequence[int] = "",
        *,
        max_new_tokens: int | None = None,
        options: SamplingOptions = SamplingOptions(),
        stop: Sequence[str] = (),
        seed: int = 0,
        num_slots: int | None = None,
        context_overflow: str = "error",
    ) -> Iterator[str]:
        """Returns an iterator over the pieces of one sample's text, as it is generated.

        Takes the arguments of `generate`, except `num_samples`, and checks them at once.
        """
        tokens, strings = self._prompt(prompt, stop)
        pieces = generate_lib.generate(
            self._decoder,
            self.params,
            self.tokenizer,
            [tokens],
            max_new_tokens=max_new_tokens,
            options=options,
            stop=strings,
            seed=seed,
            num_slots=num_slots,
            context_overflow=context_overflow,
        )
        return (text for ((text, _),) in pieces if text)

    def next_tokens(self, prompt: str | Sequence[int] = "", count: int = 10) -> list[NextToken]:
        """Returns the `count` most probable next tokens at temperature 1, most probable first.

        The prompt is a text or its token ids.

        Raises:
          UserError: for a `count` below 1, or a prompt that `token_ids` refuses or that is too
            long.
        """
        count = arguments.integer("count", count, low=1)
        logits_V = self._logits(self._encode("prompt", prompt))[-1]
        probs_V = np.asarray(jax.nn.softmax(logits_V))
        best = np.argsort(-probs_V, kind="stable")[:count]
        return [NextToken(self.tokenizer.decode([i]), i, float(probs_V[i])) for i in best.tolist()]

    def score(self, text: str | Sequence[int]) -> Score:
        """Returns the log-probability of each token of a text, or of ids, given those before it."""
        tokens = self._encode("text", text)
        logprobs_TxV = jax.nn.log_softmax(self._logits(tokens)[:-1])
        picked = np.take_along_axis(np.asarray(logprobs_TxV), np.asarray(tokens)[1:, None], axis=1)
        return Score(tokens, picked[:, 0].tolist())

    def attention(self, text: str | Sequence[int]) -> np.ndarray:
        """Returns attention probabilities, float32 [L, H, T, T]; query t attends to keys 0..t.

        `text` is a text or its token ids.
        """
        tokens = self._encode("text", text)
        maps = _attention_maps(self._decoder, self.params, jnp.asarray([tokens]))
        return np.asarray(maps)

    def inspect(
        self, text: str | Sequence[int], interventions: Interventions = NO_INTERVENTIONS
    ) -> Inspection:
        """Returns what the model does with a text, as arrays by address: every value inside of it.

        `inspect("a text")["pattern/0/3"]` are the weights of head 3 in layer 0, [T, T]; `views()`
        of what is returned lists all addresses. All is computed in float32, from the weights as
        they are stored: a model that computes in another dtype reads them again, once.

        Args:
          text: a text or its token ids.
          interventions: what is changed inside the model.

        Raises:
          UserError: if the text is too long or cannot be encoded, or an intervention names what the
            model has not.
          StorageError: if the weights are to be read again, and are no longer there.
        """
        tokens = self.token_ids(text)
        return Inspection(Run(self._subject, tokens, interventions))

    @functools.cached_property
    def _subject(self) -> Subject:
        params = self.params if self._read_exact is None else self._read_exact()
        return Subject(self.config, params, self.tokenizer)

    @property
    def takes_text(self) -> bool:
        """Returns whether the model's tokenizer is known; if not, ids are its only text."""
        return not isinstance(self.tokenizer, IdsTokenizer)

    def token_ids(self, text: str | Sequence[int], name: str = "text") -> list[int]:
        """Returns the ids of a text, or ids after checking them; an empty text is where one starts.

        Args:
          text: a string, or a sequence of token ids.
          name: what error messages call it.

        Raises:
          UserError: if an id is not in the vocabulary, there is none, the text cannot be encoded,
            or it is neither a text nor ids.
        """
        if isinstance(text, str):
            return generate_lib.encode_prompt(self.tokenizer, text)
        return checked_ids(arguments.integers(name, text), self.tokenizer)

    def _prompt(
        self, prompt: str | Sequence[int], stop: Sequence[str]
    ) -> tuple[list[int], list[str]]:
        """Returns the ids of a prompt and the stop strings, which an iterator gives only once."""
        strings = self._stops(stop)
        return self.token_ids(prompt, "prompt"), strings

    def _stops(self, stop: Sequence[str]) -> list[str]:
        strings = arguments.texts("stop", stop, example="['\\n\\n']")
        if strings and isinstance(self.tokenizer, IdsTokenizer):
            raise UserError(self.tokenizer.no_stop)
        return strings

    def _encode(self, name: str, text: str | Sequence[int]) -> list[int]:
        tokens = self.token_ids(text, name)
        if len(tokens) > self.config.model.longest:
            raise UserError(
                f"text of {len(tokens)} tokens exceeds {lengths.limit(self.config.model)}"
            )
        return tokens

    def _logits(self, tokens: Sequence[int]) -> jax.Array:
        """Returns logits [T, V] of one text, computed on its tokens padded to a power of two."""
        size = generate_lib.bucket(len(tokens), self.config.model.longest)
        padded = np.zeros((1, size), np.int32)
        padded[0, : len(tokens)] = tokens
        return _logits(self._decoder, self.params, jnp.asarray(padded))[0, : len(tokens)]


@functools.partial(jax.jit, static_argnames="model")
def _logits(model: GPT2, params: Any, tokens_BxT: jax.Array) -> jax.Array:
    return model.apply({"params": params}, tokens_BxT, method=GPT2.logits)[0]


@functools.partial(jax.jit, static_argnames="model")
def _attention_maps(model: GPT2, params: Any, tokens_1xT: jax.Array) -> jax.Array:
    shown: Any
    _, shown = model.apply({"params": params}, tokens_1xT, mutable=[VALUES])
    layers = [shown[VALUES][f"h_{i}"]["attn"]["pattern"][0] for i in range(model.config.num_layers)]
    return jnp.stack(layers)
