"""From pairs to a model that gives their translations and ends them by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2_jax import config as config_lib
from gpt2_jax import experiment
from gpt2_jax.tasks.registry import make_task
from tests.tasks.data import PAIRS, write_pairs


@pytest.mark.slow
def test_a_model_learns_to_translate_what_it_has_read(tmp_path: Path) -> None:
    data, out = write_pairs(tmp_path / "pairs"), tmp_path / "tokens"
    summary = make_task("translation").prepare(data, "bpe:320", out)
    config = config_lib.from_dict(
        {
            "model": {
                "num_layers": 2,
                "num_heads": 2,
                "d_model": 64,
                "context_length": 96,
                "vocab_size": summary["vocab_size"],
                "vocab_multiple": 16,
                "position": "rotary",
            },
            "compute": {"dtype": "float32", "loss_chunk": 0, "scan_unroll": 2},
            "data": {"path": str(out), "tokenizer": "bpe", "prompt_weight": 0.5},
            "optimizer": {"name": "muon"},
            "schedule": {"learning_rate": 2.0**-7, "warmup_steps": 10, "name": "linear"},
            "train": {"batch_size": 8, "total_steps": 150},
            "eval": {"every": 0, "sample_tokens": 0},
            "checkpoint": {"every": 150},
        }
    )
    experiment.train(config, tmp_path / "run")
    report = experiment.evaluate(
        tmp_path / "run", ["translation"], data, out=tmp_path / "answers", split="train"
    )
    found = report["tasks"]["translation"]
    assert found["count"] == 3 * len(PAIRS) and found["cut_prompts"] == 0
    assert found["bleu"] > 95 and found["chrf2"] > 95 and found["ended"] == 1
    kept = (tmp_path / "answers" / "translation.jsonl").read_text().splitlines()[1]
    assert json.loads(kept)["answer"] == f" {PAIRS[0]['target']}"
