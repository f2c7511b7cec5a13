"""Draws tokens from logits: temperature, then top-k, then top-p, as pure functions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gpt2_jax.config import arguments
from gpt2_jax.errors import UserError, short_repr


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """Says how to choose the next token; the defaults sample from the model's own distribution.

    Attributes:
      temperature: divides the logits; 0 takes the most probable token (of equals, the lowest id).
      top_k: keeps exactly the k most probable tokens (of equals, the lowest ids); 0 keeps all.
      top_p: keeps, after top_k and renormalization, the fewest tokens whose total probability
        reaches p, including the token that crosses p: 0 keeps only the most probable token, 1 keeps
        all (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        # Plain Python numbers: the options are compiled into the program, and so must have a hash.
        for name, check in (
            ("temperature", arguments.number),
            ("top_k", arguments.integer),
            ("top_p", arguments.number),
        ):
            object.__setattr__(self, name, check(name, getattr(self, name)))
        # Beyond these limits, float32 logits would become infinite or all equal.
        if self.temperature != 0 and not 1e-30 <= self.temperature <= 1e30:
            raise UserError(
                f"temperature must be 0 (greedy) or from 1e-30 to 1e30, not {self.temperature}"
            )
        if self.top_k < 0:
            raise UserError(f"top_k must be 0 (all tokens) or more, not {short_repr(self.top_k)}")
        if not 0 <= self.top_p <= 1:
            raise UserError(f"top_p must be between 0 and 1, not {self.top_p}")


def sample(logits_BxV: jax.Array, key: jax.Array, options: SamplingOptions) -> jax.Array:
    """Draws one token for each row and returns them, [B] int32.

    Args:
      logits_BxV: float32, without padded rows.
      key: a PRNG key; rows draw independently.
      options: static, because they are compiled into the program.
    """
    if options.temperature == 0:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    if options == SamplingOptions(temperature=options.temperature):  # every token is kept
        return jax.random.categorical(key, logits_BxV / options.temperature).astype(jnp.int32)
    kept_BxN, ids_BxN = kept_logits(logits_BxV, options)
    choice_B = jax.random.categorical(key, kept_BxN)
    return jnp.take_along_axis(ids_BxN, choice_B[:, None], axis=-1)[:, 0].astype(jnp.int32)


def kept_logits(logits_BxV: jax.Array, options: SamplingOptions) -> tuple[jax.Array, jax.Array]:
    """Returns the tokens that top_k and top_p keep, most probable first.

    Only the top k are sorted: sorting the whole vocabulary costs a hundred times more.

    Returns:
      (logits after temperature [B, N], -inf for tokens that are dropped; token ids [B, N]), with N
      = top_k or V.
    """
    num_kept = min(options.top_k or logits_BxV.shape[-1], logits_BxV.shape[-1])
    kept_BxN, ids_BxN = jax.lax.top_k(logits_BxV / options.temperature, num_kept)
    probs_BxN = jax.nn.softmax(kept_BxN, axis=-1)
    before_BxN = jnp.cumsum(probs_BxN, axis=-1) - probs_BxN
    # The first token always stays. At p = 1 all stay, whatever the sum is rounded to.
    within_BxN = (before_BxN < options.top_p) | (options.top_p == 1) | (jnp.arange(num_kept) == 0)
    return jnp.where(within_BxN, kept_BxN, -jnp.inf), ids_BxN
