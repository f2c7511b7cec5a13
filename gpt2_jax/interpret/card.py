"""Counts the parameters of a model part by part, and its bytes: the card of the model.

The same sum gives 124M for GPT-2's smallest model, which its paper calls 117M, and 175B for GPT-3.
"""

from __future__ import annotations

from typing import Any

from gpt2_jax.config import ModelConfig
from gpt2_jax.model import norms
from gpt2_jax.model.flops import num_params
from gpt2_jax.model.residual import NORM_POSITIONS

BYTES = {"float32": 4, "bfloat16": 2}
GPT2_SIZES = {
    "gpt2": (12, 12, 768),
    "medium": (24, 16, 1024),
    "large": (36, 20, 1280),
    "xl": (48, 25, 1600),
}
"""Layers, heads and width of the four models (Radford et al. 2019, table 2)."""
_GPT3 = (96, 96, 12288, 2048)  # Brown et al. 2020, table 2.1; its context is 2048
_VOCAB = 50257


def card(config: ModelConfig) -> dict[str, Any]:
    """Returns what a model has, for JSON: parts with formula and count, their sum, bytes, sizes."""
    parts = parts_of(config)
    total = sum(part["count"] for part in parts)
    return {
        "parts": parts,
        "parameters": total,
        "bytes": {dtype: total * width for dtype, width in BYTES.items()},
        "cache_bytes_per_token": 2 * config.num_layers * config.d_model * BYTES["float32"],
        "sizes": sizes(),
    }


def parts_of(config: ModelConfig) -> list[dict[str, Any]]:
    """Returns {name, formula, count} of each part of a model; padded rows are not counted.

    The last part, if it is there, holds what variants of GPT-2 add.
    """
    V, D, L, F = config.vocab_size, config.d_model, config.num_layers, config.mlp_width
    S, b = config.context_length, int(config.bias)
    norm = norms.num_params(config)
    norm_formula = "2 D" if norm == 2 * D else "D"
    matrices = 3 if config.is_gated else 2
    parts = [("token embedding", "V D", V * D)]
    if config.position == "learned":
        parts.append(("position embedding", "S D", S * D))
    parts += [
        ("norms", f"L (2) ({norm_formula})", L * 2 * norm),
        ("queries, keys, values", _formula("L (3 D D", "3 D", b), L * (3 * D * D + b * 3 * D)),
        ("attention projection", _formula("L (D D", "D", b), L * (D * D + b * D)),
        (
            "MLP",
            _formula(f"L ({matrices} D F", f"{matrices - 1} F + D" if matrices > 2 else "F + D", b),
            L * (matrices * D * F + b * ((matrices - 1) * F + D)),
        ),
    ]
    if NORM_POSITIONS[config.norm_position].has_final:
        parts.append(("final norm", norm_formula, norm))
    if not config.tie_embeddings:
        parts.append(("output matrix", "V D", V * D))
    rest = num_params(config) - sum(count for _, _, count in parts)
    if rest:
        parts.append(("variants", "what this model adds to GPT-2", rest))
    return [{"name": name, "formula": formula, "count": count} for name, formula, count in parts]


def sizes() -> list[dict[str, Any]]:
    """Returns name, layers, heads, width, parameters and bytes of GPT-2's sizes and of GPT-3."""
    shapes = {name: (*shape, 1024) for name, shape in GPT2_SIZES.items()} | {"gpt3": _GPT3}
    found = []
    for name, (L, H, D, S) in shapes.items():
        config = ModelConfig(
            num_layers=L, num_heads=H, d_model=D, context_length=S, vocab_size=_VOCAB
        )
        count = num_params(config)
        entry = {"name": name, "num_layers": L, "num_heads": H, "d_model": D, "parameters": count}
        found.append(entry | {"bytes": {dtype: count * n for dtype, n in BYTES.items()}})
    return found


def _formula(matrices: str, biases: str, has_biases: int) -> str:
    return f"{matrices} + {biases})" if has_biases else f"{matrices})"
