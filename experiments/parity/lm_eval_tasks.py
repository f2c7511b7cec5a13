r"""Compares our scores with lm-eval's for each example, and the time that both take.

Command (`make compare-env` makes the environment):
  .venv-compare/bin/python experiments/parity/lm_eval_tasks.py --model RUN --data DIR \
    --out experiments/parity/results

The model is exported and scored by lm-eval's `hf` backend on its own definitions of the tasks, with
the files of DIR instead of the hub's; then by our evaluator, and then by lm-eval with our model
`gpt2_jax`. Each is timed from the loaded model to the last score; our time includes compilation.
Whole texts and generated texts, made from LAMBADA's passages, are compared between lm-eval's two
backends. The exit status is 1 if a log-probability, a decision or a text differs by more than the
limits below.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import lm_eval
import numpy as np
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from gpt2_jax.evals.harness import GPT2JaxLM
from gpt2_jax.evals.registry import task_factory
from gpt2_jax.evals.task import Setting, read_jsonl
from gpt2_jax.formats import huggingface
from gpt2_jax.formats.load import Model, load
from gpt2_jax.inference.scoring import Scorer
from gpt2_jax.parallel.malloc import keep_freed_memory

DEFINITIONS = {  # lm-eval's
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation"),
    "lambada_openai": ("lambada/lambada_openai.yaml", "test"),
}
LIMIT = 1e-4  # relative, of log-probabilities and perplexities
# Float32 rounds a probability near 1 by 6e-8. A log-probability closer to 0 than this has too few
# digits for a relative comparison in either program, and may differ by LIMIT times this.
CERTAIN = 1e-2  # nats
NEAR_TIE = 1e-3  # nats between two choices, below which either is accepted
TEXTS = 48  # generated
LONG_TEXTS = 16  # scored whole
NEW_TOKENS = 32
# Stop strings, in turn: none, one token, parts of tokens, overlapping strings.
STOPS: tuple[list[str], ...] = ([], ["."], ["\n", "e t"], [" the", "he", "\n\n"])

Answers = list[list[tuple[float, bool]]]  # of each choice of each example


def main() -> int:
    """Compares, prints, writes lm_eval_tasks.json, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a run's workdir or any other model")
    parser.add_argument("--data", type=Path, required=True, help="folder with the tasks' files")
    parser.add_argument("--out", type=Path, required=True, help="folder for lm_eval_tasks.json")
    parser.add_argument("--limit", type=int, help="score only the first N examples of each")
    parser.add_argument("--batch_size", type=int, default=16, help="batch size of lm-eval")
    args = parser.parse_args()
    keep_freed_memory()  # as `gpt2-jax eval` does; it speeds up both
    loaded = load(args.model)
    setting = Setting(args.data, loaded.tokenizer, loaded.config.model.context_length)
    report: dict[str, Any] = {
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "torch", "lm_eval")
        },
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(loaded.params)),
        "tasks": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        huggingface.write(Path(folder), loaded.config.model, loaded.params, loaded.tokenizer)
        theirs = HFLM(
            pretrained=folder,
            device="cpu",
            dtype="float32",
            batch_size=args.batch_size,
            max_length=loaded.config.model.context_length,
        )
        mine = GPT2JaxLM(args.model, batch_size=args.batch_size)
        for name in DEFINITIONS:
            file = setting.file(name)
            expected, metrics, hf_seconds = by_lm_eval(theirs, name, file, args.limit)
            answers, ours, seconds = by_ours(loaded, name, setting, args.limit)
            row = _compare(name, expected, metrics, answers, ours)
            row |= {"hf_seconds": hf_seconds, "seconds": seconds, "ratio": hf_seconds / seconds}
            answers, ours, seconds = by_lm_eval(mine, name, file, args.limit)
            row["adapter"] = _compare(name, expected, metrics, answers, ours)
            row["adapter"]["seconds"] = seconds
            report["tasks"][name] = row
            print(f"{name}: {json.dumps(row)}", flush=True)
        rows = read_jsonl(setting.file("lambada_openai"), {"text": str})
        passages = [row["text"] for row in rows]
        report["whole_texts"] = _whole_texts(theirs, mine, passages)
        report["generated_texts"] = _generated_texts(theirs, mine, passages)
        print(json.dumps([report["whole_texts"], report["generated_texts"]]))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "lm_eval_tasks.json").write_text(json.dumps(report, indent=2) + "\n")
    compared = [one for row in report["tasks"].values() for one in (row, row["adapter"])]
    good = all(
        row["largest_relative_difference"] <= LIMIT
        and not row["other_decisions"]
        and (row["near_ties"] or _close(row["lm_eval"], row["gpt2_jax"]))
        for row in compared
    )
    good &= report["whole_texts"]["largest_relative_difference"] <= LIMIT
    good &= not report["generated_texts"]["other_texts"]
    return 0 if good else 1


def by_lm_eval(
    model: LM, name: str, file: Path, limit: int | None
) -> tuple[Answers, dict[str, float], float]:
    """Returns (likelihoods of each example, metrics, seconds) of lm-eval."""
    jax.clear_caches()
    definition, split = DEFINITIONS[name]
    original = Path(lm_eval.__file__).parent / "tasks" / definition
    with tempfile.TemporaryDirectory() as folder:
        local = {
            "include": str(original),
            "task": f"{name}_local",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {split: str(file.absolute())}},
        }
        if name == "hellaswag":
            local["training_split"] = None
        (Path(folder) / "task.yaml").write_text(yaml.safe_dump(local))
        manager = TaskManager(include_path=folder, include_defaults=False)
        began = time.monotonic()
        results = lm_eval.simple_evaluate(
            model=model,
            tasks=[f"{name}_local"],
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
        seconds = time.monotonic() - began
    samples = sorted(results["samples"][f"{name}_local"], key=lambda sample: sample["doc_id"])
    likelihoods = [
        [(float(logprob), bool(greedy)) for logprob, greedy in sample["filtered_resps"]]
        for sample in samples
    ]
    metrics = results["results"][f"{name}_local"]
    values = {key.removesuffix(",none"): value for key, value in metrics.items()}
    return (
        likelihoods,
        {k: values[k] for k in ("acc", "acc_norm", "perplexity") if k in values},
        seconds,
    )


def by_ours(
    model: Model, name: str, setting: Setting, limit: int | None
) -> tuple[Answers, dict[str, float], float]:
    """Returns (likelihoods of each example, metrics, seconds) of this package."""
    jax.clear_caches()
    scorer = Scorer(model.params, model.config.model, model.config.compute)
    began = time.monotonic()
    task = task_factory(name)(setting)
    requests = task.requests[:limit]
    likelihoods = dict(scorer.score(requests))
    rows = [task.row(i, likelihoods[i]) for i in range(len(requests))]
    metrics = task.metrics(rows)
    seconds = time.monotonic() - began
    answers = [
        [(one.total, bool(one.greedy.all())) for one in likelihoods[i]]
        for i in range(len(requests))
    ]
    for row, example in zip(rows, answers, strict=True):
        assert _decision(name, example) == (row["choice"] if "choice" in row else row["greedy"])
    return answers, metrics, seconds


def _decision(name: str, example: list[tuple[float, bool]]) -> int | bool:
    """Returns what decides whether an example is right."""
    if name == "lambada_openai":
        return example[0][1]
    return int(np.argmax([logprob for logprob, _ in example]))


def _compare(
    name: str,
    expected: Answers,
    metrics: dict[str, float],
    found: Answers,
    ours: dict[str, float],
) -> dict[str, Any]:
    """Compares answers and metrics with those of the hf backend."""
    pairs = [
        (theirs[0], mine[0])
        for one, other in zip(expected, found, strict=True)
        for theirs, mine in zip(one, other, strict=True)
    ]
    near_ties, other_decisions = [], []
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        choice = _decision(name, other)
        if _decision(name, one) == choice:
            continue
        totals = [logprob for logprob, _ in one]
        tie = name != "lambada_openai" and max(totals) - totals[choice] < NEAR_TIE
        (near_ties if tie else other_decisions).append(index)
    return {
        "examples": len(expected),
        "log_likelihoods": len(pairs),
        "largest_relative_difference": max(abs(a - b) / max(abs(a), CERTAIN) for a, b in pairs),
        "near_certain": sum(abs(a) < CERTAIN for a, _ in pairs),
        "greedy": sum(greedy for example in expected for _, greedy in example),
        "near_ties": near_ties,
        "other_decisions": other_decisions,
        "lm_eval": metrics,
        "gpt2_jax": {key: ours[key] for key in metrics},
    }


def _close(expected: dict[str, float], found: dict[str, float]) -> bool:
    return all(abs(found[key] - value) <= LIMIT * abs(value) for key, value in expected.items())


def _whole_texts(theirs: HFLM, mine: GPT2JaxLM, passages: list[str]) -> dict[str, Any]:
    """Compares whole texts of several windows, and one that is shorter than a window."""
    texts = [passages[0], *_long_texts(mine, passages)]
    requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    expected, hf_seconds = _timed(theirs, "loglikelihood_rolling", requests)
    found, seconds = _timed(mine, "loglikelihood_rolling", requests)
    return {
        "texts": len(texts),
        "tokens": sum(len(mine.tok_encode(text)) for text in texts),
        "largest_relative_difference": max(
            abs(a - b) / abs(a) for a, b in zip(expected, found, strict=True)
        ),
        "hf_seconds": hf_seconds,
        "seconds": seconds,
    }


def _generated_texts(theirs: HFLM, mine: GPT2JaxLM, passages: list[str]) -> dict[str, Any]:
    """Compares greedy texts after passages, some of which are truncated to fit."""
    prompts = [*passages[: TEXTS - LONG_TEXTS], *_long_texts(mine, passages)]
    requests = [
        Instance("generate_until", {}, (prompt, {"until": until, "max_gen_toks": NEW_TOKENS}), i)
        for i, (prompt, until) in enumerate(zip(prompts, itertools.cycle(STOPS)))
    ]
    expected, hf_seconds = _timed(theirs, "generate_until", requests)
    found, seconds = _timed(mine, "generate_until", requests)
    pairs = list(zip(expected, found, strict=True))
    return {
        "texts": len(pairs),
        "stopped": sum(len(mine.tok_encode(text)) < NEW_TOKENS - 1 for text in expected),
        "different_texts": len({*expected}),
        "other_texts": [index for index, (one, other) in enumerate(pairs) if one != other],
        "hf_seconds": hf_seconds,
        "seconds": seconds,
    }


def _long_texts(mine: GPT2JaxLM, passages: list[str]) -> list[str]:
    """Returns texts of joined passages, each longer than two contexts."""
    texts, text = [], ""
    for passage in passages:
        text += passage + "\n"
        if len(mine.tok_encode(text)) > 2 * mine.max_length:
            texts.append(text)
            text = ""
            if len(texts) == LONG_TEXTS:
                break
    return texts


def _timed(model: LM, kind: str, requests: list[Instance]) -> tuple[list[Any], float]:
    jax.clear_caches()
    began = time.monotonic()
    return getattr(model, kind)(requests), time.monotonic() - began


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
