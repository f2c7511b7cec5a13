"""Summaries of documents: fine-tuned, and in the prompt form of the GPT-2 paper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.files.extras import import_extra
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.tasks.base import Decoding, Example, Metric, Record, Task, average, read_split

_KEYS = ("document", "summary")
_ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# A line break within a paragraph; an indented line, as of Debian's lists, stays one of its own.
_WRAPPED = re.compile(r"(?<=\S)\n(?=\S)")
# The rest of a longer document would crowd out others in training, and says little that is new.
_CHARACTERS = 1200
_SENTENCE = re.compile(r".*?[.!?](?=\s|$)", re.DOTALL)


class Summarization(Task):
    """Writes the `summary` of each line's `document`; scored by ROUGE."""

    name = "summarization"

    @property
    def protocol(self) -> str:
        """Returns how the answers are generated, and how ROUGE is computed."""
        return (
            f"{self._form}; the first {_CHARACTERS:,} characters of each document; rouge-score, "
            "F-measure times 100, Porter stemmer, rougeLsum over lines; intervals: bootstrap over "
            "examples"
        )

    _form = "greedy, up to the end of text"

    def read(self, folder: Path, split: str) -> list[Record]:
        """Returns the documents of a split, each with its summary."""
        return read_split(folder, split, _KEYS)

    def format(self, record: Record) -> Example:
        """Returns the document's beginning on long lines, `TL;DR:`, and the summary."""
        document = _WRAPPED.sub(" ", record["document"])[:_CHARACTERS]
        return Example(f"{document}\nTL;DR:", f" {record['summary']}")

    def score(self, records: Sequence[Record], answers: Sequence[str]) -> list[Metric]:
        """Returns ROUGE-1, -2, -L and -Lsum of the answers."""
        return rouge_metrics(answers, [record["summary"] for record in records])


class ZeroShotSummarization(Summarization):
    """Asks any model as the GPT-2 paper does (section 3.6): `TL;DR:` behind the document.

    100 tokens are drawn from the 2 most probable each, and the first 3 sentences count.
    """

    name = "summarization_zero_shot"
    decoding = Decoding(SamplingOptions(temperature=1.0, top_k=2), max_new_tokens=100)
    _form = "TL;DR:, top-k 2, 100 tokens, first 3 sentences (GPT-2 paper, section 3.6)"
    _sentences = 3

    def answer(self, text: str) -> str:
        """Returns the first 3 sentences."""
        ends = [match.end() for match in _SENTENCE.finditer(text)]
        return text[: ends[self._sentences - 1] if len(ends) >= self._sentences else None].strip()


def rouge_metrics(answers: Sequence[str], references: Sequence[str]) -> list[Metric]:
    """Returns the mean F-measures times 100 of rouge-score with the Porter stemmer."""
    rouge: Any = import_extra("rouge_score.rouge_scorer", extra="tasks", needed_by="ROUGE")
    scorer = rouge.RougeScorer(list(_ROUGE), use_stemmer=True)
    found = [scorer.score(*pair) for pair in zip(references, answers, strict=True)]
    return [average(name, [100 * each[name].fmeasure for each in found]) for name in _ROUGE]
