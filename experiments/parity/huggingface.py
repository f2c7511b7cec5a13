"""Compares our GPT-2 with transformers' in logits, greedy texts and files, at 124M and four sizes.

Command (`make compare-env` makes the environment; 10 minutes on 2 cores):
  .venv-compare/bin/python experiments/parity/huggingface.py --out experiments/parity/results

Noise is added to every tensor of every model: in a new model, norms are one and biases zero, so
that swapping two of them would not change any logit. The exit status is 1 if a difference exceeds
the limits below.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.formats import huggingface
from gpt2_jax.inference.generate import decode_params, generate_tokens
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import abstract_params, build_decoder, build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.char import CharTokenizer

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2_124M": {},
    "mlp 3x, erf gelu, eps 1e-3": dict(
        n_layer=3, n_head=5, n_embd=80, n_positions=1024, vocab_size=1001, n_inner=240,
        activation_function="gelu", layer_norm_epsilon=1e-3,
    ),
    "unscaled scores, relu": dict(
        n_layer=2, n_head=2, n_embd=48, n_positions=1024, vocab_size=777,
        scale_attn_weights=False, activation_function="relu",
    ),
    "scaled by layer, untied, upcast": dict(
        n_layer=4, n_head=4, n_embd=64, n_positions=1024, vocab_size=513,
        scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True,
        tie_word_embeddings=False, activation_function="quick_gelu",
    ),
    "one head of 256, silu": dict(
        n_layer=2, n_head=1, n_embd=256, n_positions=1024, vocab_size=300, n_inner=64,
        activation_function="silu",
    ),
}  # fmt: skip
COMPUTE = ComputeConfig(dtype="float32", loss_chunk=0)
LOGIT_LIMIT = 1e-5  # relative to the largest logit
GREEDY = 100
_PROMPTS = (7, 40, 1)  # tokens of each prompt of the ragged batch


def compare(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Compares one config; returns the row of a table."""
    theirs = _noisy(GPT2Config(**settings, attn_implementation="eager"))
    theirs.save_pretrained(folder / "there")
    config, params = _read(folder / "there")

    ids = torch.from_numpy(np.random.default_rng(0).integers(0, config.vocab_size, (2, 1024)))
    with torch.no_grad():
        expected = theirs(ids).logits.numpy()
    model = build_model(config, COMPUTE)
    run = jax.jit(lambda p, t: model.apply({"params": p}, t, method=GPT2.logits)[0])
    logits = np.asarray(run(params, jnp.asarray(ids.numpy(), jnp.int32)))
    row: dict[str, Any] = {
        "parameters": sum(p.numel() for p in theirs.parameters()),
        "logit_error": float(np.abs(logits - expected).max() / np.abs(expected).max()),
        **_greedy(theirs, config, params, ids),
    }

    # Export, load in transformers, and import again.
    (folder / "here").mkdir()
    tokenizer = (
        GPT2Tokenizer()
        if config.vocab_size == 50257
        else CharTokenizer("".join(map(chr, range(256, 256 + config.vocab_size))))
    )
    huggingface.write(folder / "here", config, params, tokenizer)
    back, info = GPT2LMHeadModel.from_pretrained(
        folder / "here", output_loading_info=True, attn_implementation="eager"
    )
    row["keys_amiss"] = sum(len(info[key]) for key in info)
    with torch.no_grad():
        exported = back.eval()(ids).logits.numpy()
    # Not exactly 0 for `reorder_and_upcast_attn`, an order of operations that is not exported.
    row["export_error"] = float(np.abs(exported - expected).max() / np.abs(expected).max())
    row["bytes_identical"] = _tensors(folder / "here") == _tensors(folder / "there")
    again, same = _read(folder / "here")
    equal = jax.tree.map(lambda a, b: bool((a == b).all()), same, params)
    row["import_export_import_identical"] = again == config and all(jax.tree.leaves(equal))
    return row


def passed(row: dict[str, Any]) -> bool:
    """Returns whether a row is within the limits."""
    flags = [value for value in row.values() if isinstance(value, bool)]
    close = max(row["logit_error"], row["export_error"]) <= LOGIT_LIMIT
    return close and row["keys_amiss"] == 0 and all(flags)


def _noisy(config: GPT2Config) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    noise = torch.Generator().manual_seed(1)
    # A tenth of the weights at 124M; more at the small sizes, whose scores it does not saturate.
    size = 0.02 if config.n_embd >= 256 else 0.1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=noise))
    return model


def _read(folder: Path) -> tuple[ModelConfig, Any]:
    config = huggingface.read_config(folder).model
    return config, huggingface.read_params(folder, config, abstract_params(config))


def _greedy(theirs: Any, config: ModelConfig, params: Any, ids: torch.Tensor) -> dict[str, bool]:
    """Compares greedy continuations of a ragged batch, ours with and without a cache."""
    longest = max(_PROMPTS)
    batch = torch.zeros((len(_PROMPTS), longest), dtype=torch.long)
    mask = torch.zeros_like(batch)
    for row, length in enumerate(_PROMPTS):
        batch[row, longest - length :] = ids[0, :length]
        mask[row, longest - length :] = 1
    with torch.no_grad():
        expected = theirs.generate(
            batch, attention_mask=mask, max_new_tokens=GREEDY, do_sample=False, pad_token_id=0,
            eos_token_id=None,
        )[:, longest:].numpy()  # fmt: skip
    prompts = [ids[0, :length].tolist() for length in _PROMPTS]
    options = SamplingOptions(temperature=0)
    decoder = build_decoder(config, COMPUTE)
    cached = generate_tokens(decoder, decode_params(decoder, params), prompts, GREEDY, options)
    return {
        "greedy_identical": bool((cached == expected).all()),
        "greedy_without_cache_identical": bool(
            (_without_cache(config, params, prompts) == expected).all()
        ),
    }


def _without_cache(config: ModelConfig, params: Any, prompts: list[list[int]]) -> np.ndarray:
    """Returns greedy tokens, each from a full forward pass over all tokens before it."""
    width = max(map(len, prompts)) + GREEDY
    tokens = np.zeros((len(prompts), width), np.int32)
    ends = np.array([len(prompt) for prompt in prompts])
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    model = build_model(config, COMPUTE)

    @jax.jit
    def after(params: Any, tokens: jax.Array, ends: jax.Array) -> jax.Array:
        hidden, _ = model.apply({"params": params}, tokens)
        last = jnp.take_along_axis(hidden, (ends - 1)[:, None, None], axis=1)
        return model.apply({"params": params}, last, method=GPT2.unembed)[:, 0].argmax(-1)

    for _ in range(GREEDY):
        tokens[np.arange(len(prompts)), ends] = after(params, tokens, ends)
        ends += 1
    return np.stack([tokens[row, end - GREEDY : end] for row, end in enumerate(ends)])


def _tensors(folder: Path) -> dict[str, bytes]:
    return {name: x.tobytes() for name, x in load_file(folder / "model.safetensors").items()}


def main() -> int:
    """Prints a line per config, writes the JSON, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for huggingface.json")
    out = parser.parse_args().out
    rows = {}
    for name, settings in CONFIGS.items():
        folder = Path(tempfile.mkdtemp())
        try:
            rows[name] = compare(settings, folder)
        finally:
            shutil.rmtree(folder)
        verdict = "ok" if passed(rows[name]) else "FAILED"
        print(f"{verdict:7}{name:34}{json.dumps(rows[name])}", flush=True)
    packages = ("jax", "flax", "torch", "transformers", "safetensors")
    versions = {name: importlib.metadata.version(name) for name in packages}
    report = {"versions": versions, "python": platform.python_version(), "configs": rows}
    out.mkdir(parents=True, exist_ok=True)
    (out / "huggingface.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(map(passed, rows.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
