"""Compares our adapters with PEFT's in logits, merged weights and files, in both directions.

Command (`make compare-env` makes the environment; a minute on 2 cores):
  .venv-compare/bin/python experiments/parity/peft_adapters.py --out experiments/parity/results

For each set of targets, PEFT makes adapters of a small GPT-2 whose every tensor has noise, B
included. We read them, write them again, and PEFT reads what we have written. The exit status is 1
if a difference exceeds the limits below.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.formats import peft
from gpt2_jax.formats.load import Model, load
from gpt2_jax.model.build import build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.lora import merge, without_adapters

CASES: dict[str, dict[str, Any]] = {
    "attention, rank 8": {"r": 8, "lora_alpha": 16, "target_modules": ["attn.c_attn"]},
    "all layers, rank 4": {
        "r": 4,
        "lora_alpha": 32,
        "target_modules": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    },
    "by suffix, rank 3": {"r": 3, "lora_alpha": 5, "target_modules": ["c_proj", "c_fc"]},
    "rank-stabilized": {
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "target_modules": ["c_attn"],
    },
}
COMPUTE = ComputeConfig(dtype="float32", loss_chunk=0)
LIMIT = 1e-5  # relative to the largest logit, or weight


def compare(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Compares one set of adapters; returns the row of a table."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=3, n_head=4, n_embd=64, n_positions=128, vocab_size=515,
        attn_implementation="eager",
    )  # fmt: skip
    base = _noisy(GPT2LMHeadModel(config), 0.1)
    base.save_pretrained(folder / "base")
    adapted = get_peft_model(
        GPT2LMHeadModel.from_pretrained(folder / "base", attn_implementation="eager"),
        LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **settings),
    )
    _noisy(adapted, 0.1, only="lora_")
    adapted.eval()
    adapted.save_pretrained(folder / "theirs")
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 515, (2, 128)))
    expected = _theirs(adapted, ids)

    # Ours read what PEFT has written.
    model = load(folder / "theirs")
    row = {
        "trained": sum(p.numel() for n, p in adapted.named_parameters() if "lora_" in n),
        "adapter_effect": _error(_theirs(base, ids), expected),
        "logit_error": _error(_ours(model.config.model, model.params, ids), expected),
    }
    merged = merge(model.params, model.config.model)
    plain = without_adapters(model.config.model)
    row["merged_logit_error"] = _error(_ours(plain, merged, ids), expected)

    # PEFT reads what we write.
    (folder / "ours").mkdir()
    peft.write(folder / "ours", model)
    theirs, ours = (load_file(folder / name / peft.ADAPTERS) for name in ("theirs", "ours"))
    row["tensors_identical"] = theirs.keys() == ours.keys() and all(
        np.array_equal(theirs[name], ours[name]) for name in theirs
    )
    back = PeftModel.from_pretrained(
        GPT2LMHeadModel.from_pretrained(folder / "base", attn_implementation="eager"),
        folder / "ours",
    ).eval()
    row["export_error"] = _error(_theirs(back, ids), expected)
    row["merged_weight_error"] = _merged_weight_error(back, merged, model)
    return row


def passed(row: dict[str, Any]) -> bool:
    """Returns whether a row is within the limits."""
    errors = [value for name, value in row.items() if name.endswith("_error")]
    return max(errors) <= LIMIT < row["adapter_effect"] and row["tensors_identical"]


def _merged_weight_error(back: Any, merged: Any, model: Model) -> float:
    """Returns the largest difference of a merged kernel between PEFT and ours."""
    state = back.merge_and_unload().state_dict()
    worst = 0.0
    for part, linear in (
        ("attn", "c_attn"),
        ("attn", "c_proj"),
        ("mlp", "c_fc"),
        ("mlp", "c_proj"),
    ):
        for layer in range(model.config.model.num_layers):
            expected = state[f"transformer.h.{layer}.{part}.{linear}.weight"].numpy()
            found = np.asarray(merged["h"][part][linear]["kernel"][layer])
            worst = max(worst, _error(found.reshape(expected.shape), expected))
    return worst


def _noisy(model: Any, size: float, only: str = "") -> Any:
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if only in name:
                parameter.add_(size * torch.randn(parameter.shape, generator=noise))
    return model.eval()


def _theirs(model: Any, ids: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(ids).logits.numpy()


def _ours(config: ModelConfig, params: Any, ids: torch.Tensor) -> np.ndarray:
    model = build_model(config, COMPUTE)
    run = jax.jit(lambda p, t: model.apply({"params": p}, t, method=GPT2.logits)[0])
    return np.asarray(run(params, jnp.asarray(ids.numpy(), jnp.int32)))


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main() -> int:
    """Prints a line per case, writes the JSON, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for peft_adapters.json")
    out = parser.parse_args().out
    rows = {}
    for name, settings in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = compare(settings, Path(folder))
        verdict = "ok" if passed(rows[name]) else "FAILED"
        print(f"{verdict:7}{name:22}{json.dumps(rows[name])}", flush=True)
    packages = ("jax", "flax", "torch", "transformers", "peft", "safetensors")
    versions = {name: importlib.metadata.version(name) for name in packages}
    report = {"versions": versions, "python": platform.python_version(), "cases": rows}
    out.mkdir(parents=True, exist_ok=True)
    (out / "peft_adapters.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(map(passed, rows.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
