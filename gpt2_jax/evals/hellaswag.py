"""Scores HellaSwag (Zellers et al. 2019): which of four endings is the real one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.evals.task import Row, Setting, Task, mean, read_jsonl
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.scoring import Likelihood, encode_pair

_KEYS = {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list}


class HellaSwag(Task):
    """Chooses the ending that the model finds most probable, as lm-eval's `hellaswag` does.

    The data are `hellaswag_val.jsonl`, whose 10,042 lines have the fields of the original release:
    activity_label, ctx_a, ctx_b, endings, label.
    """

    name = "hellaswag"
    protocol = (
        "lm-eval's: activity and context, brackets removed; acc: the ending of the highest "
        "log-probability is the real one; acc_norm: the ending of the highest per character is"
    )

    def __init__(self, setting: Setting) -> None:
        self.requests, self._lengths, self._labels = [], [], []
        self.path = setting.file(self.name)
        for number, row in enumerate(read_jsonl(self.path, _KEYS), start=1):
            if not all(isinstance(ending, str) for ending in row["endings"]):
                raise UserError(f"{self.path}, line {number}: 'endings' must be strings")
            if "label" not in row:
                raise UserError(f"{self.path}, line {number}: the key 'label' is missing")
            label = str(row["label"])
            if not label.isdecimal() or int(label) >= len(row["endings"]):
                raise UserError(f"{self.path}, line {number}: no ending has the label {label}")
            context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
            endings = [_clean(ending) for ending in row["endings"]]
            pairs = [
                encode_pair(setting.tokenizer, _clean(context), f" {ending}") for ending in endings
            ]
            self.requests.append(Request(pairs[0][0], tuple(pair[1] for pair in pairs)))
            self._lengths.append([max(1, len(ending)) for ending in endings])
            self._labels.append(int(label))

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Returns log-probabilities of the endings, the choice by each rule, and the real one."""
        totals = np.array([likelihood.total for likelihood in likelihoods])
        return {
            "logprobs": totals.tolist(),
            "choice": int(totals.argmax()),
            "choice_norm": int((totals / self._lengths[index]).argmax()),
            "label": self._labels[index],
        }

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Returns `acc` and `acc_norm`."""
        return mean("acc", [row["choice"] == row["label"] for row in rows]) | mean(
            "acc_norm", [row["choice_norm"] == row["label"] for row in rows]
        )


def _clean(text: str) -> str:
    """Removes the brackets in the WikiHow part of the data, such as [step]."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")
