"""HellaSwag (Zellers et al. 2019): which of four endings is the real one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt2_jax.data.tokenizer import Tokenizer
from gpt2_jax.errors import UserError
from gpt2_jax.evals.batching import Request
from gpt2_jax.evals.scoring import Likelihood, encode_pair
from gpt2_jax.evals.task import Row, mean, read_jsonl

FILE = "hellaswag_val.jsonl"
_KEYS = {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list}


class HellaSwag:
    """The ending that the model finds most probable, as lm-eval's `hellaswag` scores it.

    Data: `hellaswag_val.jsonl`, the fields of the original release a line: activity_label, ctx_a,
    ctx_b, endings, label; the validation set has 10,042.
    """

    name = "hellaswag"
    protocol = (
        "lm-eval's: activity and context, brackets removed; acc: the ending of the highest "
        "log-probability is the real one; acc_norm: of the highest per character"
    )

    def __init__(self, folder: Path) -> None:
        """Reads the examples; UserError for a file that is missing or malformed."""
        self._contexts, self._endings, self._labels = [], [], []
        for number, row in enumerate(read_jsonl(folder / FILE, _KEYS), start=1):
            context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
            self._contexts.append(_clean(context))
            self._endings.append([_clean(str(ending)) for ending in row["endings"]])
            label = str(row.get("label"))
            if not label.isdigit() or int(label) >= len(row["endings"]):
                raise UserError(f"{folder / FILE}, line {number}: no ending has the label {label}")
            self._labels.append(int(label))

    def requests(self, tokenizer: Tokenizer, context_length: int) -> list[Request]:
        """The context, and each ending behind a space."""
        requests = []
        for context, endings in zip(self._contexts, self._endings, strict=True):
            pairs = [encode_pair(tokenizer, context, f" {ending}") for ending in endings]
            requests.append(Request(pairs[0][0], tuple(pair[1] for pair in pairs)))
        return requests

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Log-probabilities of the endings, the one chosen by each rule, and the real one."""
        totals = np.array([likelihood.total for likelihood in likelihoods])
        lengths = np.array([len(ending) for ending in self._endings[index]])
        return {
            "logprobs": totals.tolist(),
            "choice": int(totals.argmax()),
            "choice_norm": int((totals / lengths).argmax()),
            "label": self._labels[index],
        }

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """`acc` and `acc_norm`."""
        return mean("acc", [row["choice"] == row["label"] for row in rows]) | mean(
            "acc_norm", [row["choice_norm"] == row["label"] for row in rows]
        )


def _clean(text: str) -> str:
    """Without the brackets that the WikiHow part of the data carries, such as [step]."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")
