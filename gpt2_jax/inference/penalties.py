"""Changes logits by what a row has seen: penalties, n-grams that must not repeat, biases."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class History(NamedTuple):
    """Holds the tokens of each row so far.

    Attributes:
      tokens_BxS: int32, prompt and generated tokens; what lies beyond `lengths_B` means nothing.
      lengths_B: int32, how many they are.
      counts_BxV: int32, how often each token was generated.
      in_prompt_BxV: bool, whether it occurs in the prompt.
    """

    tokens_BxS: Any
    lengths_B: Any
    counts_BxV: Any
    in_prompt_BxV: Any


class Penalties(NamedTuple):
    """Holds what each row penalizes; `SamplingOptions` documents the values.

    Attributes:
      presence_B, frequency_B, repetition_B: float32; 0, 0 and 1 change nothing.
      ngram_B: int32, `no_repeat_ngram_size`.
      bias_ids_BxN: int32, ids whose logits get a bias; -1 for none.
      biases_BxN: float32.
    """

    presence_B: Any
    frequency_B: Any
    repetition_B: Any
    ngram_B: Any
    bias_ids_BxN: Any
    biases_BxN: Any

    @property
    def counting(self) -> jax.Array:
        """Returns whether any row needs the counts of its history."""
        by_count = (self.presence_B != 0) | (self.frequency_B != 0) | (self.repetition_B != 1)
        return by_count.any()


def penalized(logits_BxV: jax.Array, penalties: Penalties, history: History) -> jax.Array:
    """Returns the logits after penalties, biases and bans; parts that no row needs are skipped.

    Repetition divides positive logits and multiplies negative ones (Keskar et al. 2019); presence
    and frequency are subtracted, as OpenAI's API documents it; a token that would complete an
    n-gram for the second time becomes impossible, as in transformers.
    """
    by_count = lambda x_BxV: _by_count(x_BxV, penalties, history)  # noqa: E731
    without_ngrams = lambda x_BxV: _without_ngrams(x_BxV, penalties.ngram_B, history)  # noqa: E731
    biased = lambda x_BxV: _biased(x_BxV, penalties)  # noqa: E731
    same = lambda x_BxV: x_BxV  # noqa: E731
    logits_BxV = jax.lax.cond(penalties.counting, by_count, same, logits_BxV)
    logits_BxV = jax.lax.cond((penalties.bias_ids_BxN >= 0).any(), biased, same, logits_BxV)
    return jax.lax.cond((penalties.ngram_B > 0).any(), without_ngrams, same, logits_BxV)


def _by_count(logits_BxV: jax.Array, penalties: Penalties, history: History) -> jax.Array:
    counts_BxV = history.counts_BxV
    repetition_Bx1 = penalties.repetition_B[:, None]
    seen_BxV = (counts_BxV > 0) | history.in_prompt_BxV
    repeated_BxV = jnp.where(
        logits_BxV > 0, logits_BxV / repetition_Bx1, logits_BxV * repetition_Bx1
    )
    logits_BxV = jnp.where(seen_BxV, repeated_BxV, logits_BxV)
    logits_BxV -= penalties.presence_B[:, None] * (counts_BxV > 0)
    return logits_BxV - penalties.frequency_B[:, None] * counts_BxV


def _biased(logits_BxV: jax.Array, penalties: Penalties) -> jax.Array:
    V = logits_BxV.shape[1]
    # Ids of no token lie beyond the vocabulary, where nothing is written.
    ids_BxN = jnp.where(penalties.bias_ids_BxN < 0, V, penalties.bias_ids_BxN)
    rows_Bx1 = jnp.arange(len(ids_BxN))[:, None]
    return logits_BxV.at[rows_Bx1, ids_BxN].add(penalties.biases_BxN, mode="drop")


def _without_ngrams(logits_BxV: jax.Array, ngram_B: jax.Array, history: History) -> jax.Array:
    """Bans each token that followed an earlier occurrence of the last n - 1 tokens."""
    tokens_BxS, lengths_B = history.tokens_BxS, history.lengths_B
    B, S = tokens_BxS.shape
    slots_S = jnp.arange(S)

    def matching(j: jax.Array, match_BxS: jax.Array) -> jax.Array:
        """Compares the token j before each slot with the token j before the next one."""
        last_B = jnp.take_along_axis(tokens_BxS, jnp.maximum(lengths_B - j, 0)[:, None], axis=1)
        equal_BxS = jnp.roll(tokens_BxS, j, axis=1) == last_B
        return match_BxS & (equal_BxS | (j >= ngram_B)[:, None])

    inside_BxS = (slots_S < lengths_B[:, None]) & (slots_S >= (ngram_B - 1)[:, None])
    # An n-gram longer than the row has occurred nowhere: `inside_BxS` says so.
    most = jnp.minimum(ngram_B.max(), S)
    match_BxS = jax.lax.fori_loop(1, most, matching, inside_BxS & (ngram_B > 0)[:, None])
    ids_BxS = jnp.where(match_BxS, tokens_BxS, logits_BxV.shape[1])
    return logits_BxV.at[jnp.arange(B)[:, None], ids_BxS].set(-jnp.inf, mode="drop")
