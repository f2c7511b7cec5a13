"""The Python API: `load(M)`, then generate, stream, score, next_tokens, attention."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.formats import load as load_lib
from gpt2_jax.inference import generate as generate_lib
from gpt2_jax.inference.generate import Sample
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.tokenizers.tokenizer import Tokenizer


class NextToken(NamedTuple):
    """A candidate for the next token: its text, id and probability."""

    text: str
    id: int
    probability: float


class Score(NamedTuple):
    """A text as a model finds it: tokens, and the log-probability (nats) of all but the first."""

    tokens: list[int]
    logprobs: list[float]


def load(model: str | Path) -> LanguageModel:
    """A model ready to use, from a run's workdir or the folder of one of its steps.

    Raises:
      UserError: if the folder is not a model.
      StorageError: if there is no whole checkpoint, or the newest can't be read.
    """
    loaded = load_lib.load(model)
    return LanguageModel(loaded.config, loaded.params, loaded.tokenizer)


class LanguageModel:
    """Parameters, tokenizer and the things to do with them; all methods leave it as it is.

    Attributes:
      config: the whole config of the run that made it.
      tokenizer: see `gpt2_jax.tokenizers.tokenizer.Tokenizer`.
      params: unrolled over layers, in the compute dtype.
    """

    def __init__(self, config: Config, params: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        """Takes scanned parameters, as training has them."""
        self.config, self.tokenizer = config, tokenizer
        self.params = generate_lib.decode_params(params, config.model)

    def generate(
        self,
        prompt: str = "",
        *,
        num_samples: int = 1,
        max_new_tokens: int | None = None,
        options: SamplingOptions = SamplingOptions(),
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Sample]:
        """Continues a prompt `num_samples` times.

        Args:
          prompt: empty for an unconditional text.
          max_new_tokens: default: as many as the context has room for.
          options: temperature, top_k and top_p.
          stop: texts that end a sample; not part of it.
          seed: the same seed gives the same samples.

        Raises:
          UserError: if the prompt does not fit the context.
        """
        if num_samples < 1:
            raise UserError(f"num_samples must be at least 1, not {num_samples}")
        _check_text(prompt)
        return generate_lib.generate_text(
            self.params,
            self.config.model,
            self.tokenizer,
            [prompt] * num_samples,
            max_new_tokens=max_new_tokens,
            options=options,
            stop=stop,
            seed=seed,
        )

    def stream(self, prompt: str = "", **options: Any) -> Iterator[str]:
        """Yields the text of one sample in pieces, as it comes.

        Takes the options of `generate` but `num_samples`.
        """
        _check_text(prompt)
        pieces = generate_lib.generate(
            self.params, self.config.model, self.tokenizer, [prompt], **options
        )
        for ((text, _),) in pieces:
            if text:
                yield text

    def next_tokens(self, prompt: str = "", count: int = 10) -> list[NextToken]:
        """The `count` most probable next tokens at temperature 1, most probable first."""
        if count < 1:
            raise UserError(f"count must be at least 1, not {count}")
        logits_V = self._logits(self._encode(prompt))[-1]
        probs_V = np.asarray(jax.nn.softmax(logits_V))
        best = np.argsort(-probs_V, kind="stable")[:count]
        return [NextToken(self.tokenizer.decode([i]), i, float(probs_V[i])) for i in best.tolist()]

    def score(self, text: str) -> Score:
        """Log-probability of each token of `text` after the ones before it."""
        tokens = self._encode(text)
        logprobs_TxV = jax.nn.log_softmax(self._logits(tokens)[:-1])
        picked = np.take_along_axis(np.asarray(logprobs_TxV), np.asarray(tokens)[1:, None], axis=1)
        return Score(tokens, picked[:, 0].tolist())

    def attention(self, text: str) -> np.ndarray:
        """Attention probabilities, float32 [L, H, T, T]: row t is what query t sees of 0..t."""
        tokens = self._encode(text)
        maps = _attention_maps(self.params, self.config.model, jnp.asarray([tokens]))
        return np.asarray(maps)

    def _encode(self, text: str) -> list[int]:
        _check_text(text)
        tokens = generate_lib.encode_prompt(self.tokenizer, text)
        context = self.config.model.context_length
        if len(tokens) > context:
            raise UserError(
                f"text of {len(tokens)} tokens exceeds the model's context of {context}"
            )
        return tokens

    def _logits(self, tokens: Sequence[int]) -> jax.Array:
        """Logits [T, V] of one text, computed on its tokens padded to a power of two."""
        size = generate_lib.bucket(len(tokens), self.config.model.context_length)
        padded = np.zeros((1, size), np.int32)
        padded[0, : len(tokens)] = tokens
        return _logits(self.params, self.config.model, jnp.asarray(padded))[0, : len(tokens)]


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise UserError(f"a text must be one str, not {type(text).__name__}")


@functools.partial(jax.jit, static_argnames="config")
def _logits(params: Any, config: ModelConfig, tokens_BxT: jax.Array) -> jax.Array:
    model = GPT2(dataclasses.replace(config, dropout=0.0), scanned=False)
    return model.apply({"params": params}, tokens_BxT, method=GPT2.logits)[0]


@functools.partial(jax.jit, static_argnames="config")
def _attention_maps(params: Any, config: ModelConfig, tokens_1xT: jax.Array) -> jax.Array:
    # Only the reference kernel has probabilities to show.
    model = GPT2(dataclasses.replace(config, attention="reference"), scanned=False)
    sown: Any
    _, sown = model.apply({"params": params}, tokens_1xT, mutable=["intermediates"])
    layers = [
        sown["intermediates"][f"h_{i}"]["attn"]["attention"][0][0] for i in range(config.num_layers)
    ]
    return jnp.stack(layers)
