"""Says how tokens are drawn (`SamplingOptions`), and draws them, each row by options of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import arguments
from gpt2_jax.errors import UserError, short_repr
from gpt2_jax.inference.cuts import kept
from gpt2_jax.inference.penalties import History, Penalties, penalized

MOST_BIASES = 256
MOST_ENDS = 16
"""The most ids that end a text: of the tokenizer, and `stop_token_ids`."""


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """Says how to choose the next token; the defaults sample from the model's own distribution.

    Penalties and biases change the logits before the temperature divides them. Numbers have the
    ranges of `arguments.SAMPLING_RANGES`.

    Attributes:
      temperature: divides the logits; 0 takes the most probable token (of equals, the lowest id),
        as do numbers below 1e-30, by which nothing can be divided in float32.
      top_k: keeps exactly the k most probable tokens (of equals, the lowest ids); 0 and -1 keep
        all.
      top_p: keeps, after top_k and renormalization, the fewest tokens whose total probability
        reaches p, including the token that crosses p: 0 keeps only the most probable token, 1 keeps
        all (Holtzman et al. 2020).
      min_p: keeps tokens that are at least this times as probable as the most probable one.
      presence_penalty: is subtracted from the logit of every token that was generated before.
      frequency_penalty: is subtracted once for each time that the token was generated.
      repetition_penalty: divides positive and multiplies negative logits of tokens that were
        generated or are in the prompt.
      no_repeat_ngram_size: no sequence of so many tokens occurs twice, prompt included; 0 allows
        all.
      logit_bias: id -> what is added to its logit; kept as pairs, so that options have a hash.
      ignore_eos: whether the tokenizer's end of text does not end the text.
      stop_token_ids: further ids that end it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]] = ()
    ignore_eos: bool = False
    stop_token_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        for name, (low, high) in arguments.SAMPLING_RANGES.items():
            value = getattr(self, name)
            if isinstance(getattr(type(self), name), int):
                number = min(arguments.integer(name, value, low=int(low)), 2**31 - 1)
            else:
                number = arguments.number(name, value)
                if not low <= number <= high:
                    raise UserError(f"{name} must be between {low:g} and {high:g}, not {number}")
            object.__setattr__(self, name, number)
        if not self.repetition_penalty:
            raise UserError("repetition_penalty must be above 0, not 0.0")
        checked = {
            # Below this limit, float32 logits would become infinite.
            "temperature": self.temperature if self.temperature >= 1e-30 else 0.0,
            "top_k": max(0, self.top_k),
            "ignore_eos": arguments.boolean("ignore_eos", self.ignore_eos),
            "logit_bias": _checked_biases(self.logit_bias),
            "stop_token_ids": _checked_ids(self.stop_token_ids),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def ends(self, of_tokenizer: Collection[int]) -> frozenset[int]:
        """Returns all ids that end a text.

        Args:
          of_tokenizer: the tokenizer's, which `ignore_eos` leaves out.
        """
        return frozenset(self.stop_token_ids) | frozenset(() if self.ignore_eos else of_tokenizer)


def _checked_ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection):
        raise UserError(f"stop_token_ids must be a list of token ids, not {short_repr(value)}")
    return tuple(
        arguments.integer(f"stop_token_ids[{i}]", token, low=0) for i, token in enumerate(value)
    )


def _checked_biases(value: Any) -> tuple[tuple[int, float], ...]:
    is_pairs = isinstance(value, (tuple, list)) and all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in value
    )
    pairs = dict(value) if is_pairs else value
    biases = arguments.mapping("logit_bias", pairs, example="{50256: -100}")
    if len(biases) > MOST_BIASES:
        raise UserError(f"logit_bias must name at most {MOST_BIASES} ids, not {len(biases)}")
    checked: dict[int, float] = {}
    for token, bias in biases.items():
        number = arguments.number(f"logit_bias[{short_repr(token)}]", bias)
        if not -100 <= number <= 100:
            raise UserError(f"logit_bias[{token}] must be between -100 and 100, not {number}")
        checked[arguments.integer("a token of logit_bias", token, low=0)] = number
    return tuple(sorted(checked.items()))


class Settings(NamedTuple):
    """Holds the options of each row as arrays, so that one program serves all options.

    Attributes:
      temperature_B, top_k_B, top_p_B, min_p_B: see `SamplingOptions`.
      penalties: see `Penalties`.
      ends_BxE: int32, ids that end the row; -1 for none.
      keys_Bx2: uint32, the data of the key that each row draws from; of `settings_of` the seed,
        which `key_of_choice` turns into the key.
    """

    temperature_B: Any
    top_k_B: Any
    top_p_B: Any
    min_p_B: Any
    penalties: Penalties
    ends_BxE: Any
    keys_Bx2: Any


def settings_of(options: SamplingOptions, ends: Collection[int], seed: int) -> Settings:
    """Returns the settings of one row, NumPy arrays without the axis B.

    Args:
      options: how it draws.
      ends: the tokenizer's ids that end a text.
      seed: 64 bits.

    Raises:
      UserError: if more ids than `MOST_ENDS` end it.
    """
    ids = sorted(options.ends(ends))
    if len(ids) > MOST_ENDS:
        named = len({*options.stop_token_ids})
        own = " beside the model's own" if len(ids) > named else ""
        raise UserError(
            f"stop_token_ids must be at most {MOST_ENDS - len(ids) + named} ids{own}, not {named}"
        )
    biases = dict(options.logit_bias)
    penalties = Penalties(
        np.float32(options.presence_penalty),
        np.float32(options.frequency_penalty),
        np.float32(options.repetition_penalty),
        np.int32(options.no_repeat_ngram_size),
        _padded(list(biases), MOST_BIASES, np.int32, -1),
        _padded(list(biases.values()), MOST_BIASES, np.float32, 0),
    )
    return Settings(
        np.float32(options.temperature),
        np.int32(options.top_k),
        np.float32(options.top_p),
        np.float32(options.min_p),
        penalties,
        _padded(ids, MOST_ENDS, np.int32, -1),
        np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32),
    )


def _padded(values: Sequence[float], size: int, dtype: Any, padding: float) -> np.ndarray:
    array = np.full(size, padding, dtype)
    array[: len(values)] = values
    return array


def key_of_choice(seed_2: jax.Array, choice: jax.Array) -> jax.Array:
    """Returns the data of the key of one choice among those of a seed, uint32 [2]."""
    key = jax.random.wrap_key_data(seed_2, impl="threefry2x32")
    return jax.random.key_data(jax.random.fold_in(key, choice))


def draw(
    logits_BxV: jax.Array, settings: Settings, history: History, drawn_B: jax.Array
) -> jax.Array:
    """Returns the next token of each row, int32 [B].

    A row's token depends on nothing of the other rows. It is the argmax of logits / T + noise
    (Gumbel's trick), and the noise follows from (seed, choice, `drawn`) in the vocabulary's order.

    Args:
      logits_BxV: float32, without padded rows.
      settings: how each row draws.
      history: its tokens so far.
      drawn_B: int32, how many tokens it has drawn.
    """
    logits_BxV = penalized(logits_BxV, settings.penalties, history)
    greedy_B = first_argmax(logits_BxV)

    def sampled(logits_BxV: jax.Array) -> jax.Array:
        divided_B = settings.temperature_B > 0
        temperature_Bx1 = jnp.where(divided_B, settings.temperature_B, 1.0)[:, None]
        largest_Bx1 = jnp.maximum(logits_BxV.max(-1, keepdims=True), jnp.finfo(jnp.float32).min)
        scaled_BxV = (logits_BxV - largest_Bx1) / temperature_Bx1
        cuts = settings.top_k_B, settings.top_p_B, settings.min_p_B
        cutting = (cuts[0] > 0) | (cuts[1] < 1) | (cuts[2] > 0)
        scaled_BxV = jax.lax.cond(
            cutting.any(),
            lambda x_BxV: jnp.where(kept(x_BxV, *cuts), x_BxV, -jnp.inf),
            lambda x_BxV: x_BxV,
            scaled_BxV,
        )
        return first_argmax(scaled_BxV + _noise(settings.keys_Bx2, drawn_B, logits_BxV.shape[1]))

    random_B = settings.temperature_B > 0
    sampled_B = jax.lax.cond(random_B.any(), sampled, lambda x_BxV: greedy_B, logits_BxV)
    return jnp.where(random_B, sampled_B, greedy_B)


def first_argmax(x_BxV: jax.Array) -> jax.Array:
    """Returns the lowest index of the largest number of each row, int32 [B].

    XLA's own argmax carries pairs through its reduction, which on a CPU takes several times longer.
    """
    V = x_BxV.shape[1]
    is_largest_BxV = x_BxV == x_BxV.max(-1, keepdims=True)
    index_B = jnp.where(is_largest_BxV, jnp.arange(V, dtype=jnp.int32), V).min(-1)
    return jnp.minimum(index_B, V - 1)  # a row that holds NaN


def _noise(keys_Bx2: jax.Array, drawn_B: jax.Array, size: int) -> jax.Array:
    """Returns Gumbel noise [B, V], each row's a function of its key and count alone."""

    def of_row(key_2: jax.Array, drawn: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key_2, impl="threefry2x32")
        return jax.random.gumbel(jax.random.fold_in(key, drawn), (size,), jnp.float32)

    return jax.vmap(of_row)(keys_Bx2, drawn_B)
