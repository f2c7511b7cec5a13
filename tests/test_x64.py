"""A process in which JAX's 64-bit types are on trains, resumes, samples and scores as any other."""

from __future__ import annotations

import json

import jax
import pytest

import gpt2_jax
from gpt2_jax import SamplingOptions
from gpt2_jax.config import from_dict
from gpt2_jax.prepare.corpora import Document
from gpt2_jax.prepare.prepare import prepare


def use(folder, data):
    """Trains two steps, resumes for two more, and uses the model; returns every number and text."""
    config = from_dict(
        {
            "model": {"num_layers": 1, "num_heads": 2, "d_model": 16, "context_length": 32}
            | {"dropout": 0.1},
            "compute": {"dtype": "float32", "loss_chunk": 8},
            "data": {"path": str(data), "tokenizer": "byte", "isolate_documents": True},
            "schedule": {"warmup_steps": 1},
            "train": {"batch_size": 8, "total_steps": 4, "spike_threshold": 5.0},
            "eval": {"sample_tokens": 8},
            "log": {"every": 1, "histograms_every": 2, "tensorboard": False},
        }
    )
    gpt2_jax.train(config, folder, stop_at_step=2)
    gpt2_jax.train(config, folder)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    names = ("loss", "grad_norm", "learning_rate", "eval/loss")
    numbers = {(line["step"], name): line[name] for line in lines for name in names if name in line}
    model = gpt2_jax.load(folder)
    samples = [
        sample.tokens
        for options in (SamplingOptions(), SamplingOptions(top_k=5, top_p=0.9))
        for sample in model.generate("one", num_samples=2, max_new_tokens=9, options=options)
    ]
    scored = model.score("one fish two").logprobs
    text = gpt2_jax.evaluate(folder, texts={"fish": data.parent / "fish.txt"})
    return numbers, samples, [*scored, *text["tasks"]["fish"].values()]


@pytest.mark.slow
def test_64_bit_types_change_no_number(tmp_path):
    text = "one fish two fish " * 80
    (tmp_path / "fish.txt").write_text(text[:100])
    prepare([Document("data", text)], "byte", tmp_path / "data")
    numbers, samples, scores = use(tmp_path / "plain", tmp_path / "data")
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", True)
    try:
        numbers_64, samples_64, scores_64 = use(tmp_path / "x64", tmp_path / "data")
    finally:
        jax.config.update("jax_enable_x64", before)
    assert numbers_64.keys() == numbers.keys() and len(numbers) == 14
    assert numbers_64 == pytest.approx(numbers, rel=1e-5, abs=1e-6)
    assert samples_64 == samples
    assert scores_64 == pytest.approx(scores, rel=1e-5)
