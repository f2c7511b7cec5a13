r"""Shows what a model has answered, good and bad: examples at even ranks of a score.

    gpt2-jax eval --tasks translation --data DATA --model RUN --out OUT
    python experiments/tasks/answers.py --task translation --data DATA \
      --answers OUT/translation.jsonl --metric chrf2 --count 10

The examples of the test split are ordered by the metric of each alone, best first, and shown from
the first to the last at even distances, so that nobody chooses them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from gpt2_jax.tasks.base import Task
from gpt2_jax.tasks.registry import make_task


def main() -> None:
    """Prints the examples as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True, help="the task, as for gpt2-jax eval")
    parser.add_argument("--data", required=True, type=Path, help="folder of the task's data")
    parser.add_argument("--answers", required=True, type=Path, help="what eval --out has kept")
    parser.add_argument("--metric", required=True, help="what to order by, such as chrf2 or rouge1")
    parser.add_argument("--count", type=int, default=10, help="how many (default: 10)")
    args = parser.parse_args()
    print(shown(make_task(args.task), args.data, args.answers, args.metric, args.count))


def shown(task: Task, data: Path, answers: Path, metric: str, count: int) -> str:
    """Returns so many examples with their score, prompt, expected answer and answer.

    Raises:
      SystemExit: if the task has no such metric.
    """
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()[1:]]
    records = task.read(data, "test")[: len(rows)]
    texts = [task.answer(row["answer"]) for row in sorted(rows, key=lambda row: row["index"])]
    metrics = {each.name: each for each in task.score(records, texts)}
    if metric not in metrics:
        raise SystemExit(f"--metric must be one of {', '.join(metrics)}, not {metric}")
    scores = np.array([metrics[metric].combine(row) for row in metrics[metric].values])
    order = np.argsort(-scores, kind="stable")
    ranks = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    parts = []
    for rank in ranks:
        index = int(order[rank])
        prompt, expected = task.format(records[index])
        parts.append(
            f"**{metric} {scores[index]:.1f}, rank {rank + 1} of {len(order)}**\n\n"
            f"    {prompt.strip().replace(chr(10), chr(10) + '    ')}\n\n"
            f"- expected: {expected.strip()}\n- answered: {texts[index]}\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    main()
