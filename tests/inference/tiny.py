"""A tiny model for the tests: its config, noise for parameters, and a workdir that holds them.

Nothing is trained: a run's folder is what `checkpoint/store.py` writes, and random weights show
more than a few steps' worth of training would.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.config import ComputeConfig, Config
from gpt2_jax.model.build import abstract_params
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_COMPUTE_KNOBS = {field.name for field in dataclasses.fields(ComputeConfig)}


def tiny_config(tokenizer: Tokenizer | None = None, **changes: Any) -> Config:
    """Two layers, 32 wide, 32 tokens, float32; `changes` are knobs of `model` or `compute`."""
    tokenizer = tokenizer or ByteTokenizer()
    compute = {"dtype": "float32", "loss_chunk": 0, "scan_unroll": 2}
    compute |= {name: changes.pop(name) for name in _COMPUTE_KNOBS & set(changes)}
    model = {
        "num_layers": 2,
        "num_heads": 4,
        "d_model": 32,
        "context_length": 32,
        "vocab_size": tokenizer.vocab_size,
        "vocab_multiple": 16,
    }
    return config_lib.from_dict(
        {
            "model": model | changes,
            "compute": compute,
            "data": {"tokenizer": tokenizer.name},
            "schedule": {"warmup_steps": 1},
            "train": {"batch_size": 8, "total_steps": 2},
        }
    )


def noisy_params(config: Config, seed: int = 0) -> Any:
    """Scanned parameters, noise in every tensor, so that no two could be swapped unnoticed."""
    rng = np.random.default_rng(seed)

    def noise(path: Any, leaf: Any) -> jax.Array:
        values = rng.normal(0, 0.3, leaf.shape)
        # Around 1 for scales; small for biases, which would otherwise decide every token alone.
        kind = path[-1].key
        values = 1 + values if kind == "scale" else values / 10 if kind == "bias" else values
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(noise, abstract_params(config.model))


def make_run(
    workdir: Path,
    config: Config | None = None,
    tokenizer: Tokenizer | None = None,
    step: int = 2,
    seed: int = 0,
) -> Path:
    """Writes a run's workdir with one checkpoint and returns it."""
    tokenizer = tokenizer or ByteTokenizer()
    config = config or tiny_config(tokenizer)
    workdir.mkdir(parents=True, exist_ok=True)
    values = config_lib.to_dict(config)
    (workdir / "config.json").write_text(json.dumps(values), encoding="utf-8")
    meta = {"step": step, "config": values, "tokenizer": tokenizer.to_dict()}
    store = CheckpointStore(workdir / "checkpoints", keep=9)
    store.save(step, noisy_params(config, seed), {"step": jnp.int32(step)}, meta)
    store.wait()
    store.close()
    return workdir
