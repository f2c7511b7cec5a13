r"""Compares lm-eval's scores through a server with ours, which are computed directly.

Commands (`make compare-env` makes the environment; tenacity and aiohttp are for lm-eval's client):
  gpt2-jax serve --model model=RUN
  .venv-compare/bin/python -m pip install tenacity aiohttp
  .venv-compare/bin/python -m experiments.parity.lm_eval_server --model RUN --data DIR \
    --out experiments/parity/results

lm-eval's `local-completions` scores its own definitions of the tasks, with the files of DIR. Its
client takes one token less than the context, so that the longest example must be shorter. The exit
status is 1 if a metric differs by more than 5e-5, relative where it is above 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from lm_eval.models.openai_completions import LocalCompletionsAPI

from experiments.parity.lm_eval_tasks import DEFINITIONS, by_lm_eval, by_ours
from gpt2_jax.evals.registry import task_factory
from gpt2_jax.evals.task import Setting
from gpt2_jax.formats.load import load

_LIMITS = {"rel_tol": 5e-5, "abs_tol": 5e-5}


def main() -> int:
    """Compares, prints, writes lm_eval_server.json, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the model that is served")
    parser.add_argument("--name", default="model", help="its name on the server")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the server listens")
    parser.add_argument("--data", type=Path, required=True, help="folder with the tasks' files")
    parser.add_argument("--limit", type=int, default=500, help="score the first N examples of each")
    parser.add_argument("--out", type=Path, required=True, help="folder for lm_eval_server.json")
    args = parser.parse_args()
    model = load(args.model)
    length = model.config.model.context_length
    remote = LocalCompletionsAPI(
        base_url=f"{args.url}/v1/completions",
        model=args.name,
        max_length=length,
        batch_size=8,
        num_concurrent=4,
        timeout=600,
    )
    setting = Setting(args.data, model.tokenizer, length)
    report: dict[str, Any] = {"limit": args.limit, "context_length": length}
    for name in DEFINITIONS:
        file = task_factory(name)(setting).path
        theirs, expected, _ = by_lm_eval(remote, name, file, args.limit)
        ours, found, _ = by_ours(model, name, setting, args.limit)
        differences = [
            abs(one - other)
            for mine, yours in zip(ours, theirs, strict=True)
            for (one, _), (other, _) in zip(mine, yours, strict=True)
        ]
        report[name] = {
            "through_the_server": expected,
            "directly": {metric: found[metric] for metric in expected},
            "largest_difference_of_a_log_probability": max(differences),
            "equal": all(math.isclose(x, found[m], **_LIMITS) for m, x in expected.items()),
        }
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2)
    (args.out / "lm_eval_server.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if all(report[name]["equal"] for name in DEFINITIONS) else 1


if __name__ == "__main__":
    sys.exit(main())
