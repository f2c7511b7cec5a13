"""Shows what the heads of a run attend to, with what weights, and what they write."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.interpret.patterns import max_pooled
from gpt2_jax.interpret.run import Run
from gpt2_jax.model.attention import MASKED, seen

MOST_WHOLE = 256
"""The longest text of which whole matrices [T, T] are given out."""


def scores(run: Run, layer: int, head: int) -> np.ndarray:
    """Returns a head's scores before the mask, float32 [T, T]: scale q_t . k_s, plus a bias if any.

    Raises:
      UserError: for more than 256 tokens.
    """
    _check_whole(run, "head")
    return run.block(layer)["attn/scores"][head]


def pattern(run: Run, layer: int, head: int) -> np.ndarray:
    """Returns a head's weights, float32 [T, T]: softmax of the scores of what each query sees.

    Raises:
      UserError: for more than 256 tokens.
    """
    _check_whole(run, "pattern")
    return run.patterns(layer)[head]


def pooled(run: Run, layer: int, head: int) -> np.ndarray:
    """Returns a head's pattern, uint8 round(255 p), max-pooled to at most [256, 256]."""
    return max_pooled(run.patterns(layer)[head][None], MOST_WHOLE)[0]


def thumbs(run: Run) -> np.ndarray:
    """Returns the patterns of all heads, uint8 round(255 p), max-pooled: [L, H, n, n], n <= 32."""
    return np.stack([overview.thumbs for overview in run.overviews])


def row(run: Run, layer: int, head: int, position: int) -> np.ndarray:
    """Returns one query of a head, float32 [4, T].

    Rows: the scores, which slots are seen (0 or 1), the weights, and the weights times the length
    of what each token's value writes, alpha |v W_O|.
    """
    values = run.block(layer)
    scores_T, weights_T = (values[f"attn/{x}"][head, position] for x in ("scores", "pattern"))
    seen_T = values["attn/seen"][0, position].astype(np.float32)
    return np.stack([scores_T, seen_T, weights_T, weights_T * _written(run, layer, head)])


def weighted(run: Run, layer: int, head: int) -> np.ndarray:
    """Returns a head's weights times what is written, float32 [T, T]: alpha_ts |v_s W_O|.

    A head that has nothing to say attends to a token whose value is short, mostly the first, and
    this does not count it (Kobayashi et al. 2020, "Attention is not only a weight").

    Raises:
      UserError: for more than 256 tokens.
    """
    _check_whole(run, "weighted")
    return run.patterns(layer)[head] * _written(run, layer, head)


def query(run: Run, position: int) -> np.ndarray:
    """Returns the weights of one query in all heads, float32 [L, H, T]."""
    if position == len(run) - 1:
        return np.stack([overview.last for overview in run.overviews])
    if run.queries_and_keys is not None:
        return _weights(run, run.queries_and_keys, position)
    layers = range(run.subject.config.num_layers)
    return np.stack([run.patterns(layer)[:, position] for layer in layers])


def sources(run: Run, position: int) -> np.ndarray:
    """Returns the weights of one query, averaged over the heads of each layer, float32 [L, T]."""
    return query(run, position).mean(axis=1)


def _weights(run: Run, queries_and_keys: np.ndarray, position: int) -> np.ndarray:
    """Returns the weights of one query in all heads, [L, H, T], without those of the others."""
    config = run.subject.config
    q_LxTxHxK, k_LxTxHxK = queries_and_keys
    scores_LxHxT = config.score_scale * np.einsum(
        "lhk,lshk->lhs", q_LxTxHxK[:, position], k_LxTxHxK
    )
    slots_T: Any = np.arange(len(run))
    slot: Any = np.asarray([position])
    unmasked_L = np.isin(np.arange(config.num_layers), run.interventions.unmasked)
    seen_LxT = seen(slots_T, slot, config.attention_window) | unmasked_L[:, None]
    masked_LxHxT = np.where(seen_LxT[:, None], scores_LxHxT, MASKED)
    weights_LxHxT = np.exp(masked_LxHxT - masked_LxHxT.max(-1, keepdims=True))
    return (weights_LxHxT / weights_LxHxT.sum(-1, keepdims=True)).astype(np.float32)


def qkv(run: Run, layer: int, head: int) -> np.ndarray:
    """Returns a head's queries, keys and values, float32 [3, T, K], as its scores take them.

    Scores are `score_scale` times their products, plus a bias if positions enter there.
    """
    values = run.block(layer)
    return np.stack([values[f"attn/{name}"][:, head] for name in ("q", "k", "v")])


def z(run: Run, layer: int, head: int) -> np.ndarray:
    """Returns a head's output before the projection, float32 [T, K]: sum_s alpha_ts v_s."""
    return run.z[layer, :, head]


def heads(run: Run, layer: int, position: int) -> np.ndarray:
    """Returns what attention adds at one position, float32 [H + 2, D].

    Rows: z_h W_O of each head, the bias, and their sum.
    """
    parts_HxD = (run.z[layer, position][:, None] @ projection(run, layer))[:, 0]
    bias_D = projection_bias(run, layer)
    return np.concatenate([parts_HxD, bias_D[None], (parts_HxD.sum(0) + bias_D)[None]])


def head_scores(run: Run) -> np.ndarray:
    """Returns how much each head is of three known kinds, float32 [L, H, 3]; see `patterns`."""
    return np.stack([overview.kinds for overview in run.overviews])


def projection(run: Run, layer: int) -> np.ndarray:
    """Returns the matrix W_O behind the heads of a layer, [H, K, D]."""
    return np.asarray(run.subject.params[f"h_{layer}"]["attn"]["c_proj"]["kernel"])


def projection_bias(run: Run, layer: int) -> np.ndarray:
    """Returns the bias behind the heads of a layer, [D]; zeros if the model has none."""
    bias = run.subject.params[f"h_{layer}"]["attn"]["c_proj"].get("bias")
    return np.zeros(run.subject.config.d_model, np.float32) if bias is None else np.asarray(bias)


def _written(run: Run, layer: int, head: int) -> np.ndarray:
    """Returns |v_s W_O| of each token, [T]."""
    v_TxK = run.block(layer)["attn/v"][:, head]
    return np.linalg.norm(v_TxK @ projection(run, layer)[head], axis=-1)


def _check_whole(run: Run, name: str) -> None:
    if len(run) > MOST_WHOLE:
        raise UserError(
            f"{name} has {len(run)} x {len(run)} numbers, and is given out for at most "
            f"{MOST_WHOLE} tokens: ask for pooled, or for row, which is one query"
        )
