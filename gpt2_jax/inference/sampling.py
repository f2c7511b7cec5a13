"""From logits to a token: temperature, top-k, top-p. Pure functions, in the order they apply."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gpt2_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen; the defaults sample from the model's own distribution.

    Attributes:
      temperature: logits are divided by it; 0 takes the most probable token (ties: the lowest id).
      top_k: only the k most probable tokens stay, exactly k (ties: lowest ids first); 0 keeps all.
      top_p: after top_k and renormalized, the fewest tokens whose probability reaches p stay: the
        token that crosses p included, so 0 leaves the most probable one and 1 leaves all (Holtzman
        et al. 2020).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        # Below and above, logits in float32 would become infinite, or all the same.
        if self.temperature != 0 and not 1e-30 <= self.temperature <= 1e30:
            raise UserError(
                f"temperature must be 0 (greedy) or from 1e-30 to 1e30, not {self.temperature}"
            )
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise UserError(f"top_k must be 0 (all tokens) or more, not {self.top_k}")
        if not 0 <= self.top_p <= 1:
            raise UserError(f"top_p must be between 0 and 1, not {self.top_p}")


def sample(logits_BxV: jax.Array, key: jax.Array, options: SamplingOptions) -> jax.Array:
    """Draws one token a row, [B] int32.

    Args:
      logits_BxV: float32, without padded rows.
      key: a PRNG key; rows draw independently.
      options: static; compiled into the program.
    """
    if options.temperature == 0:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    if options.top_k == 0 and options.top_p == 1:
        return jax.random.categorical(key, logits_BxV / options.temperature).astype(jnp.int32)
    kept_BxN, ids_BxN = kept_logits(logits_BxV, options)
    choice_B = jax.random.categorical(key, kept_BxN)
    return jnp.take_along_axis(ids_BxN, choice_B[:, None], axis=-1)[:, 0].astype(jnp.int32)


def kept_logits(logits_BxV: jax.Array, options: SamplingOptions) -> tuple[jax.Array, jax.Array]:
    """The tokens that top_k and top_p keep, most probable first.

    Only the top k are ever sorted: a sort of the whole vocabulary costs a hundred times more.

    Returns:
      (logits after temperature [B, N], -inf where a token is dropped; token ids [B, N]), N = top_k
      or V.
    """
    num_kept = min(options.top_k or logits_BxV.shape[-1], logits_BxV.shape[-1])
    kept_BxN, ids_BxN = jax.lax.top_k(logits_BxV / options.temperature, num_kept)
    probs_BxN = jax.nn.softmax(kept_BxN, axis=-1)
    before_BxN = jnp.cumsum(probs_BxN, axis=-1) - probs_BxN
    # The first token always stays. At p = 1 all do, whatever rounding makes of the sum.
    within_BxN = (before_BxN < options.top_p) | (options.top_p == 1) | (jnp.arange(num_kept) == 0)
    return jnp.where(within_BxN, kept_BxN, -jnp.inf), ids_BxN
