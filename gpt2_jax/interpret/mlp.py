"""Shows the norms and the MLPs of a run: what goes into them, their neurons, and what they add."""

from __future__ import annotations

import numpy as np

from gpt2_jax.interpret.run import Run
from gpt2_jax.model.params import output_table

STRONGEST = 32
"""How many neurons are listed for each token."""
WORDS = 10
"""How many tokens are listed for a neuron."""


def norm(run: Run, layer: int, which: int, position: int) -> np.ndarray:
    """Returns input and output of a block's norm, float32 [2, D]: `which` is 1 or 2."""
    values = run.block(layer)
    if run.subject.config.norm_position == "post":
        before, added, after = [
            ("resid_pre", "attn/out", "resid_mid"),
            ("resid_mid", "mlp/out", "resid_post"),
        ][which - 1]
        x_D = values[before][position] + values[added][position]
        return np.stack([x_D, values[after][position]])
    before, after = [("resid_pre", "attn_in"), ("resid_mid", "mlp_in")][which - 1]
    return np.stack([values[name][position] for name in (before, after)])


def activations(run: Run, layer: int, position: int) -> np.ndarray:
    """Returns an MLP's neurons at one position, float32 [2, F]: before and after the activation."""
    values = run.block(layer)
    return np.stack([values[name][position] for name in ("mlp/pre", "mlp/neurons")])


def output(run: Run, layer: int, position: int) -> np.ndarray:
    """Returns what an MLP adds to the residual stream at one position, float32 [D]."""
    return run.mlp_out[layer, position]


def neurons(run: Run, layer: int) -> np.ndarray:
    """Returns the neurons that write most at each position, float32 [T, 32, 3], the first the most.

    Columns: the neuron, its activation, and |activation| times the length of its row of W_out.
    Where the MLP has fewer neurons, the list is as long as it has.
    """
    values_TxF = run.block(layer)["mlp/neurons"]
    lengths_F = np.linalg.norm(_parameters(run, layer)["c_proj"]["kernel"], axis=-1)
    written_TxF = np.abs(values_TxF) * lengths_F
    # To sort all neurons of a long text would take seconds.
    last = min(STRONGEST, written_TxF.shape[-1]) - 1
    ids = np.sort(np.argpartition(-written_TxF, last, axis=-1)[:, : last + 1], axis=-1)
    order = np.argsort(-np.take_along_axis(written_TxF, ids, axis=-1), axis=-1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=-1)
    picked = [np.take_along_axis(x, ids, axis=-1) for x in (values_TxF, written_TxF)]
    return np.stack([ids, *picked], axis=-1).astype(np.float32)


def neuron_words(run: Run, layer: int, neuron: int) -> np.ndarray:
    """Returns the tokens of a neuron's question and of its answer, float32 [4, 10].

    The question is its column of W_in: it asks most for the tokens whose embeddings have the
    largest products with it. The answer is its row of W_out, which raises the logits of the tokens
    whose output vectors have the largest products with it. Rows: ids and products of the question,
    ids and products of the answer. The norms in between are left out, so that this is a picture and
    no computation of the model (Geva et al. 2021, "Feed-forward layers are key-value memories").
    """
    params = _parameters(run, layer)
    outside = run.subject.outside
    rows = []
    for table, vector_D in (
        (outside["wte"], params["c_fc"]["kernel"][:, neuron]),
        (output_table(outside), params["c_proj"]["kernel"][neuron]),
    ):
        products_V = np.asarray(table @ vector_D)[: run.subject.config.vocab_size]
        ids = np.argsort(-products_V, kind="stable")[:WORDS]
        row = np.full((2, WORDS), np.nan)
        row[:, : len(ids)] = ids, products_V[ids]
        rows.append(row)
    return np.concatenate(rows).astype(np.float32)


def _parameters(run: Run, layer: int) -> dict:
    return run.subject.params[f"h_{layer}"]["mlp"]
