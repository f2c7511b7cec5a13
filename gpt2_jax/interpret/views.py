"""Lists all views: the address of each, its shape, its formula, and what computes it.

An address is a name and numbers, such as `row/3/1/12`: layer 3, head 1, position 12. The server
gives the array of an address out as `.npy`, and the page shows no other numbers.

To add a view, write its function, from a run and the numbers, and its entry in `VIEWS`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError, did_you_mean, short_repr
from gpt2_jax.interpret import attention, attribution, mlp, stream, weights
from gpt2_jax.interpret.run import Run
from gpt2_jax.model.residual import NORM_POSITIONS

_MOST_DIGITS = 9


@dataclasses.dataclass(frozen=True)
class View:
    """Describes arrays that are computed from a run.

    Attributes:
      address: its name, and the numbers that follow: {l} layer, {h} head, {t} position, {i} row of
        the residual stream, {n} neuron, {k} entry of a head, {d} entry of the stream, {token} id,
        {which} norm 1 or 2.
      dtype: of the array.
      shape: of the array, in the letters of `model.gpt2`.
      formula: what it is.
      function: (run, *numbers) -> the array.
      of_final_norm: whether only models with a norm behind the last block have it.
    """

    address: str
    dtype: str
    shape: str
    formula: str
    function: Callable[..., np.ndarray]
    of_final_norm: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """Returns what matches the view's addresses, with a group for each number."""
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", self.address))


VIEWS: tuple[View, ...] = (
    View("tokens", "int32", "[T]", "ids of the text", stream.tokens),
    View("logits", "float32", "[V]", "unembed(ln_f(x)) behind the last token", stream.logits),
    View("logits/{t}", "float32", "[V]", "unembed(ln_f(x_t))", stream.logits),
    View("embedding/{t}", "float32", "[3, D]", "wte[id], wpe[t], and their sum", stream.embedding),
    View("norms", "float32", "[2L+1, T]", "|x| of the residual stream", stream.norms),
    View("residual/{t}", "float32", "[2L+1, D]", "the residual stream x_t", stream.residual),
    View("thumbs", "uint8", "[L, H, n, n]", "round(255 max p), n = min(T, 32)", attention.thumbs),
    View(
        "head_scores",
        "float32",
        "[L, H, 3]",
        "mean weight on the previous token, on the first, and behind an earlier equal one",
        attention.head_scores,
    ),
    View("head/{l}/{h}", "float32", "[T, T]", "scale q_t . k_s, before the mask", attention.scores),
    View("pattern/{l}/{h}", "float32", "[T, T]", "p = softmax(masked scores)", attention.pattern),
    View(
        "pooled/{l}/{h}", "uint8", "[n, n]", "round(255 max p), n = min(T, 256)", attention.pooled
    ),
    View(
        "row/{l}/{h}/{t}",
        "float32",
        "[4, T]",
        "of one query: scores, seen, p, p |v_s W_O|",
        attention.row,
    ),
    View("weighted/{l}/{h}", "float32", "[T, T]", "p_ts |v_s W_O|", attention.weighted),
    View("query/{t}", "float32", "[L, H, T]", "p_t of all heads", attention.query),
    View("sources/{t}", "float32", "[L, T]", "mean over heads of p_t", attention.sources),
    View("qkv/{l}/{h}", "float32", "[3, T, K]", "x W_Q + b, x W_K + b, x W_V + b", attention.qkv),
    View("z/{l}/{h}", "float32", "[T, K]", "z_t = sum_s p_ts v_s", attention.z),
    View("heads/{l}/{t}", "float32", "[H+2, D]", "z_h W_O of each, b, their sum", attention.heads),
    View(
        "ln/f/{t}",
        "float32",
        "[2, D]",
        "x and (x - mean) / sqrt(var + eps) g + b behind the last block",
        stream.final_norm,
        of_final_norm=True,
    ),
    View(
        "output/{token}",
        "float32",
        "[D]",
        "w of logit = w . ln_f(x), a row of the output table",
        stream.output,
    ),
    View(
        "ln/{l}/{which}/{t}",
        "float32",
        "[2, D]",
        "x and (x - mean) / sqrt(var + eps) g + b",
        mlp.norm,
    ),
    View(
        "gain/f",
        "float32",
        "[2, D]",
        "g and b of ln/f",
        weights.final_gain,
        of_final_norm=True,
    ),
    View("gain/{l}/{which}", "float32", "[2, D]", "g and b of ln/{l}/{which}", weights.gain),
    View(
        "w_qkv/{l}/{h}/{k}",
        "float32",
        "[3, D+1]",
        "W_Q, W_K, W_V of entry k, and b behind each",
        weights.qkv_column,
    ),
    View("w_o/{l}/{h}/{d}", "float32", "[K]", "W_O of entry d", weights.projection_column),
    View("mlp/{l}/{t}", "float32", "[2, F]", "u = x W_in + b, and activation(u)", mlp.activations),
    View("mlp_out/{l}/{t}", "float32", "[D]", "activation(u) W_out + b", mlp.output),
    View(
        "neurons/{l}",
        "float32",
        "[T, 32, 3]",
        "neuron, activation a, |a| |row of W_out|",
        mlp.neurons,
    ),
    View(
        "neuron/{l}/{n}",
        "float32",
        "[4, 10]",
        "ids and products of wte with a column of W_in, of the output table with a row of W_out",
        mlp.neuron_words,
    ),
    View(
        "lens/{t}",
        "float32",
        "[2L+1, 24]",
        "softmax(unembed(ln_f(x))): 10 ids, 10 probabilities, log-probability and rank of the next "
        "token, entropy, KL(last || row)",
        stream.lens,
    ),
    View(
        "lens_grid/{i}",
        "float32",
        "[T, 4]",
        "softmax(unembed(ln_f(x))): top id, its probability, log-probability of the next, entropy",
        stream.lens_grid,
    ),
    View(
        "attribution/{t}/{token}",
        "float32",
        "[LH+2L+4]",
        "parts of the logit: heads, attention biases, MLPs, token, position, norm biases; total",
        attribution.attribution,
    ),
)
"""All views; no address matches two of them."""


def views_of(config: ModelConfig) -> list[View]:
    """Returns the views that a model has."""
    has_final = NORM_POSITIONS[config.norm_position].has_final
    return [view for view in VIEWS if has_final or not view.of_final_norm]


def listed(views: Iterable[View]) -> list[dict[str, str]]:
    """Returns the address, dtype, shape and formula of views, for JSON."""
    names = ("address", "dtype", "shape", "formula")
    return [{name: getattr(view, name) for name in names} for view in views]


def compute(run: Run, address: str) -> np.ndarray:
    """Returns the array of an address.

    Raises:
      UserError: if there is no such address, the model has nothing there, or a number in it is out
        of range.
    """
    view, numbers = find(address)
    if view not in views_of(run.subject.config):
        raise UserError(
            f"{address}: the model has no norm behind its last block (norm_position=post)"
        )
    for name, value in numbers.items():
        low, limit = _range(name, run)
        if not low <= value < limit:
            raise UserError(
                f"{address}: {_NAMES[name]} must be between {low} and {limit - 1}, not {value}"
            )
    return np.array(view.function(run, *numbers.values()), order="C")  # a copy of what is kept


def find(address: str) -> tuple[View, Mapping[str, int]]:
    """Returns (the view of an address, its numbers by name).

    Raises:
      UserError: if there is no such address.
    """
    for view in VIEWS:
        match = view.pattern.fullmatch(address)
        if match and all(len(digits) <= _MOST_DIGITS for digits in match.groups()):
            return view, {name: int(digits) for name, digits in match.groupdict().items()}
    name = address.split("/")[0]
    forms = [view.address for view in VIEWS if view.address.split("/")[0] == name]
    if forms:
        raise UserError(f"there is no view {short_repr(address)}: it must be {' or '.join(forms)}")
    names = sorted({view.address.split("/")[0] for view in VIEWS})
    raise UserError(f"there is no view {short_repr(address)}{did_you_mean(name, names)}")


_NAMES = {
    "l": "layer",
    "h": "head",
    "t": "position",
    "i": "row",
    "n": "neuron",
    "k": "entry of a head",
    "d": "entry",
    "token": "token",
    "which": "norm",
}


def _range(name: str, run: Run) -> tuple[int, int]:
    config: ModelConfig = run.subject.config
    limits: dict[str, Any] = {
        "l": config.num_layers,
        "h": config.num_heads,
        "t": len(run),
        "i": 2 * config.num_layers + 1,
        "n": config.mlp_width,
        "k": config.head_dim,
        "d": config.d_model,
        "token": config.vocab_size,
    }
    return (1, 3) if name == "which" else (0, limits[name])
