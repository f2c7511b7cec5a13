"""Translation from English to French: fine-tuned, and in the prompt form of the GPT-2 paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.files.extras import import_extra
from gpt2_jax.tasks.base import Decoding, Example, Metric, Record, Task, read_split

_KEYS = ("source", "target")


class Translation(Task):
    """Translates the `source` of each line into its `target`; scored by BLEU and chrF2."""

    name = "translation"

    @property
    def protocol(self) -> str:
        """Returns how the answers are generated, and the signatures of sacrebleu."""
        return f"{self._form}; {'; '.join(signatures())}; intervals: bootstrap over examples"

    _form = "greedy, up to the end of text"

    def read(self, folder: Path, split: str) -> list[Record]:
        """Returns the pairs of a split."""
        return read_split(folder, split, _KEYS)

    def format(self, record: Record) -> Example:
        """Returns the pair, each side after the name of its language.

        Both sides begin with a space, so that a word has the same tokens on both.
        """
        return Example(f"English: {record['source']}\nFrench:", f" {record['target']}")

    def score(self, records: Sequence[Record], answers: Sequence[str]) -> list[Metric]:
        """Returns BLEU and chrF2 of the answers."""
        return translation_metrics(answers, [record["target"] for record in records])


class ZeroShotTranslation(Translation):
    """Asks any model as the GPT-2 paper does (section 3.7), by pairs `english = french`.

    The context is the first pairs of the train split; of the answer the first sentence counts, here
    the first line, because the pairs may have several sentences.
    """

    name = "translation_zero_shot"
    decoding = Decoding(max_new_tokens=100, stop=("\n",))
    _form = "5 pairs `english = french` as context, greedy, first line (GPT-2 paper, section 3.7)"
    _pairs = 5

    def read(self, folder: Path, split: str) -> list[Record]:
        """Returns the pairs of a split, each with the context that is shown before it."""
        shown = read_split(folder, "train", _KEYS)[: self._pairs]
        context = "".join(f"{each['source']} = {each['target']}\n" for each in shown)
        return [{**record, "context": context} for record in super().read(folder, split)]

    def format(self, record: Record) -> Example:
        """Returns the context, the source and an equals sign, and the target."""
        return Example(f"{record['context']}{record['source']} =", f" {record['target']}")


def _sacrebleu() -> Any:
    return import_extra("sacrebleu", extra="tasks", needed_by="--tasks translation")


def signatures() -> list[str]:
    """Returns sacrebleu's signatures of BLEU and chrF2."""
    metrics = _sacrebleu().metrics
    made = {"BLEU": metrics.BLEU(), "chrF2": metrics.CHRF()}
    found = []
    for name, metric in made.items():
        metric.corpus_score(["a"], [["a"]])  # after which it knows the number of references
        found.append(f"{name}|{metric.get_signature()}")
    return found


def translation_metrics(answers: Sequence[str], references: Sequence[str]) -> list[Metric]:
    """Returns BLEU and chrF2, which are those of sacrebleu for a single reference."""
    metrics = _sacrebleu().metrics
    found = []
    for name, metric in (("bleu", metrics.BLEU()), ("chrf2", metrics.CHRF())):
        # The sums over the examples of these counts are all that a corpus's score is made of.
        counts = metric._extract_corpus_statistics(list(answers), [list(references)])

        def combine(sums: np.ndarray, metric: Any = metric) -> float:
            return float(metric._compute_score_from_stats(sums.tolist()).score)

        found.append(Metric(name, np.array(counts, np.float64), combine))
    return found
