"""Reads the residual stream: embeddings, norms, logits, and what earlier layers would predict."""

from __future__ import annotations

import numpy as np

from gpt2_jax.interpret import programs
from gpt2_jax.interpret.run import Run
from gpt2_jax.model.mup import output_scale
from gpt2_jax.model.params import output_table

TOP = 10
"""How many of the most probable tokens a row of the lens lists."""


def tokens(run: Run) -> np.ndarray:
    """Returns the ids of the text, int32 [T]."""
    return np.asarray(run.tokens, np.int32)


def logits(run: Run, position: int | None = None) -> np.ndarray:
    """Returns the logits behind one token, the last by default, float32 [V]."""
    return run.logits(len(run) - 1 if position is None else position)


def token_row(run: Run, position: int) -> np.ndarray:
    """Returns a token's row of the embedding table times muP's factor, float32 [D]."""
    factor = np.float32(run.subject.config.mup_input_alpha)
    return factor * run.token_embeddings[position]


def position_row(run: Run, position: int) -> np.ndarray:
    """Returns a position's row of `wpe` times muP's factor, [D]; zeros if the model adds none."""
    config = run.subject.config
    if config.position != "learned":
        return np.zeros(config.d_model, np.float32)
    row = run.subject.outside["wpe"][position]
    return np.float32(config.mup_input_alpha) * np.asarray(row)


def embedding(run: Run, position: int) -> np.ndarray:
    """Returns (row of the token, row of the position, their sum), float32 [3, D].

    The sum is what enters the first block.
    """
    total_D = run.residual[0, position]
    return np.stack([token_row(run, position), position_row(run, position), total_D])


def norms(run: Run) -> np.ndarray:
    """Returns the L2 norm of the residual stream, float32 [2 L + 1, T].

    Row 0 is the embedding, 2 l + 1 and 2 l + 2 are behind attention and MLP of layer l.
    """
    return np.sqrt(np.einsum("ntd,ntd->nt", run.residual, run.residual))


def residual(run: Run, position: int) -> np.ndarray:
    """Returns the residual stream at one position, float32 [2 L + 1, D]; rows as in `norms`."""
    return run.residual[:, position]


def final_norm(run: Run, position: int) -> np.ndarray:
    """Returns input and output of the norm behind the last block, float32 [2, D]."""
    subject = run.subject
    x_D = run.residual[-1, position]
    hidden = programs.finish(subject.model, subject.outside, x_D[None])[0]
    factor = np.float32(output_scale(subject.config))
    return np.stack([x_D, np.asarray(hidden) / factor])


def output(run: Run, token: int) -> np.ndarray:
    """Returns a token's output vector times muP's factor, float32 [D].

    Its product with the output of the norm behind the last block is the token's logit, before a
    softcap.
    """
    subject = run.subject
    factor = np.float32(output_scale(subject.config))
    return factor * np.asarray(output_table(subject.outside)[token])


def lens(run: Run, position: int) -> np.ndarray:
    """Returns what each row of the residual stream would predict, float32 [2 L + 1, 24].

    The rows are read out as the last one is: softmax(unembed(ln_f(x))); the last gives the model's
    own prediction (nostalgebraist 2020, "the logit lens"). Columns: 10 ids, their 10 probabilities,
    then the log-probability of the token that follows (NaN behind the last), the number of tokens
    that are more probable, the entropy, and KL(model's prediction || this row's), in nats.
    """
    subject, is_last = run.subject, position == len(run) - 1
    target = np.int32(0 if is_last else run.tokens[position + 1])
    count = min(TOP, subject.config.vocab_size)
    found, kl_N = programs.lens(
        subject.model, subject.outside, run.residual[:, position], target, count
    )
    rows = np.full((len(kl_N), 2 * TOP + 4), np.nan, np.float32)
    rows[:, :count] = found.top_ids
    rows[:, TOP : TOP + count] = np.exp(found.top_logprobs)
    if not is_last:
        rows[:, -4], rows[:, -3] = found.logprob, found.rank
    rows[:, -2], rows[:, -1] = found.entropy, kl_N
    return rows


def lens_grid(run: Run, row: int) -> np.ndarray:
    """Returns what one row of the residual stream would predict at every position, float32 [T, 4].

    Columns: the most probable id, its probability, the log-probability of the token that follows
    (NaN behind the last), the entropy in nats.
    """
    found = predicted(run, row, count=1)
    logprobs = found.logprob.copy()
    logprobs[-1] = np.nan
    columns = found.top_ids[:, 0], np.exp(found.top_logprobs[:, 0]), logprobs, found.entropy
    return np.stack(columns, axis=1).astype(np.float32)


def predicted(run: Run, row: int, count: int) -> programs.Predicted:
    """Returns how a row of the residual stream predicts the tokens that follow, as NumPy arrays.

    Of the last position, whose token follows nothing, `logprob` and `rank` mean nothing.
    """
    subject = run.subject
    targets = np.asarray([*run.tokens[1:], 0], np.int32)
    count = min(count, subject.config.vocab_size)
    padded_x_TxD, padded_targets_T = run.padded(run.residual[row]), run.padded(targets)
    found = programs.predict(subject.model, subject.outside, padded_x_TxD, padded_targets_T, count)
    return programs.Predicted(*(np.asarray(array)[: len(run)] for array in found))
