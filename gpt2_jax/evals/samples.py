"""Makes the evaluator that samples a text at every validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpt2_jax.config import Config
from gpt2_jax.inference.generate import decode_params, generate_text
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import build_decoder
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.training.run import Evaluator


def make_sampler(config: Config, tokenizer: Tokenizer) -> Evaluator:
    """Returns the evaluator that yields an unconditional sample, with the same seed every time."""
    # An empty prompt takes one position.
    count = min(config.eval.sample_tokens, config.model.context_length - 1)
    decoder = build_decoder(config.model, config.compute)

    def sample(params: Any, tick: Callable[[], None]) -> Iterator[tuple[str, str]]:
        if count > 0:
            samples = generate_text(
                decoder,
                decode_params(decoder, params),
                tokenizer,
                [""],
                max_new_tokens=count,
                options=SamplingOptions(temperature=0.8, top_k=50),
            )
            yield "sample", samples[0].text

    return sample
