r"""Scores what costs no model: the baselines of translation and of summaries, with intervals.

    python experiments/tasks/baselines.py --task translation --data DATA
    gpt2-jax eval --tasks translation --data DATA --model RUN --out OUT
    python experiments/tasks/baselines.py --task translation --data DATA \
      --answers OUT/translation.jsonl --out experiments/tasks/results/translation.json

With `--answers`, what `eval --out` has kept of a model is a row of its own, and for each baseline
the table has the difference to it, by a paired bootstrap over the examples of the test split. The
nearest training example is that of the highest cosine of tf-idf vectors (scikit-learn): of words,
their counts as 1 + log, for documents; of three characters for sentences, where words did worse.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.tasks.base import Metric, Record, Task
from gpt2_jax.tasks.bootstrap import difference, interval
from gpt2_jax.tasks.registry import make_task

Baseline = Callable[[Sequence[Record], Sequence[Record]], list[str]]
"""Returns an answer to each example of the second list, knowing those of the first."""
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_ROWS = 200  # whose similarities to the training examples are in memory at a time


def main() -> None:
    """Prints the table, and writes it if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True, choices=BASELINES)
    parser.add_argument("--data", required=True, type=Path, help="folder of the task's data")
    parser.add_argument("--answers", type=Path, help="the answers that eval --out has kept")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    task = make_task(args.task)
    table = compare(task, args.data, args.answers)
    print(text(table))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        document = {"task": task.name, "protocol": task.protocol, "rows": table}
        args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def compare(task: Task, data: Path, answers: Path | None = None) -> dict[str, dict[str, Any]]:
    """Returns {row: {metric: its numbers}} of each baseline, and of a model's answers.

    The numbers are a value, the 95 % interval [low, high] and, in the rows of baselines beside a
    model, by how much the model is better, the interval of that, and its p-value.
    """
    known, records = task.read(data, "train"), task.read(data, "test")
    metrics = {
        name: task.score(records, baseline(known, records))
        for name, baseline in BASELINES[task.name].items()
    }
    table = {name: {each.name: _numbers(each) for each in row} for name, row in metrics.items()}
    if answers is None:
        return table
    texts = [task.answer(text) for text in read_answers(answers, len(records))]
    model = task.score(records, texts)
    for name, row in metrics.items():
        for ours, theirs in zip(model, row, strict=True):
            found = difference(ours, theirs)
            table[name][ours.name] |= {
                "model_is_better_by": found.interval.value,
                "of": [found.interval.low, found.interval.high],
                "p": found.p,
            }
    return table | {"model": {each.name: _numbers(each) for each in model}}


def read_answers(path: Path, count: int) -> list[str]:
    """Returns the answers in the file that `eval --out` has written.

    Raises:
      SystemExit: if some are missing.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    if len(rows) != count:
        raise SystemExit(f"{path} has {len(rows)} answers to {count} examples: run eval to its end")
    return [row["answer"] for row in sorted(rows, key=lambda row: row["index"])]


def _numbers(metric: Metric) -> dict[str, Any]:
    found = interval(metric)
    return {"value": found.value, "interval": [found.low, found.high]}


def text(table: dict[str, dict[str, Any]]) -> str:
    """Returns the table as Markdown."""
    names = list(next(iter(table.values())))
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row, metrics in table.items():
        cells = []
        for each in metrics.values():
            low, high = each["interval"]
            cell = f"{each['value']:.2f} ({low:.2f} to {high:.2f})"
            if "p" in each:
                cell += f"; model {each['model_is_better_by']:+.2f}, p {each['p']:.3f}"
            cells.append(cell)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def copied(known: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """Returns the source as it is."""
    return [record["source"] for record in records]


def dictionary(known: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """Returns the source with each word replaced, everything else kept.

    A word's translation is that of the highest Dice coefficient, 2 n(s, t) / (n(s) + n(t)), where
    n counts the pairs of sentences with the word or both words; unknown words stay.
    """
    sources: collections.Counter[str] = collections.Counter()
    targets: collections.Counter[str] = collections.Counter()
    both: collections.Counter[tuple[str, str]] = collections.Counter()
    for record in known:
        words = [set(_WORD.findall(record[side])) for side in ("source", "target")]
        sources.update(words[0])
        targets.update(words[1])
        both.update((source, target) for source in words[0] for target in words[1])
    best: dict[str, tuple[float, str]] = {}
    for (source, target), count in both.items():
        dice = 2 * count / (sources[source] + targets[target])
        best[source] = max(best.get(source, (0.0, "")), (dice, target))
    return [
        _WORD.sub(lambda match: best.get(match[0], (0, match[0]))[1], record["source"])
        for record in records
    ]


def lead(known: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """Returns the first sentence of each document."""
    return [_SENTENCE_END.split(record["document"], maxsplit=1)[0] for record in records]


def first_words(known: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """Returns the first 12 words of each document."""
    return [" ".join(record["document"].split()[:12]) for record in records]


def nearest(given: str, wanted: str, **settings: Any) -> Baseline:
    """Returns the baseline that answers with what the nearest training example has.

    Args:
      given, wanted: the fields that examples are compared by, and that is the answer.
      settings: arguments of scikit-learn's TfidfVectorizer.
    """

    def answer(known: Sequence[Record], records: Sequence[Record]) -> list[str]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(**settings)
        of_known: Any = vectorizer.fit_transform([record[given] for record in known]).T
        of_records: Any = vectorizer.transform([record[given] for record in records])
        found: list[int] = []
        for start in range(0, len(records), _ROWS):
            similar = of_records[start : start + _ROWS] @ of_known
            found += np.asarray(similar.argmax(axis=1)).ravel().tolist()
        return [known[index][wanted] for index in found]

    return answer


BASELINES: dict[str, dict[str, Baseline]] = {
    "translation": {
        "copy of the source": copied,
        "dictionary (Dice), word by word": dictionary,
        "nearest training sentence": nearest(
            "source", "target", analyzer="char", ngram_range=(3, 3)
        ),
    },
    "summarization": {
        "first sentence": lead,
        "first 12 words": first_words,
        "nearest training document": nearest("document", "summary", sublinear_tf=True),
    },
}

if __name__ == "__main__":
    main()
