"""The knobs that determine the function that the model is."""

from __future__ import annotations

import dataclasses
from typing import Any

from gpt2_jax.config.knob import knob

# Names of what the package `model` implements, and the config cannot import.
POSITIONS = ("learned", "rotary", "none")
NORMS = ("layer", "rms")
# These are Hugging Face's names.
ACTIVATIONS = ("gelu_new", "gelu", "relu", "silu", "quick_gelu", "tanh")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Determines the function that the model is; equal `ModelConfig`s can share parameters."""

    num_layers: int = knob(12, "transformer blocks", low=1)
    num_heads: int = knob(12, "attention heads; must divide d_model", low=1)
    d_model: int = knob(768, "width of the residual stream", low=1)
    context_length: int = knob(1024, "tokens the model sees at once", low=1)
    vocab_size: int = knob(
        None, "token ids, padding excluded; unset: as many as the data's tokenizer has", low=1
    )
    vocab_multiple: int = knob(
        128,
        "the embedding's rows are padded to a multiple of this",
        low=1,
        changes_function=False,
    )
    dropout: float = knob(
        0.0,
        "probability of dropping a value after embeddings, attention and MLP while training",
        low=0,
        below=1,
        changes_function=False,
    )
    position: str = knob(
        "learned",
        "how positions enter: a learned table, rotated queries and keys, or not at all",
        choices=POSITIONS,
    )
    norm: str = knob("layer", "normalization: LayerNorm or RMSNorm", choices=NORMS)
    mlp_dim: int | None = knob(None, "width of the MLP; unset: 4 d_model", low=1)
    activation: str = knob(
        "gelu_new", "activation of the MLP; gelu_new is GELU's tanh form", choices=ACTIVATIONS
    )
    layer_norm_epsilon: float = knob(1e-5, "added to the variance in norms", low=0)
    scale_attn_weights: bool = knob(True, "divide attention scores by sqrt(head width)")
    scale_attn_by_inverse_layer_idx: bool = knob(
        False, "also divide attention scores of layer i, counted from 1, by i"
    )
    tie_embeddings: bool = knob(True, "use the token embedding as the output matrix")

    @property
    def padded_vocab_size(self) -> int:
        """Returns the rows of the embedding table: `vocab_size` rounded up to `vocab_multiple`."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    @property
    def head_dim(self) -> int:
        """Returns the width of one attention head."""
        return self.d_model // self.num_heads

    @property
    def mlp_width(self) -> int:
        """Returns the width of the MLP: `mlp_dim`, or GPT-2's 4 d_model."""
        return self.mlp_dim or 4 * self.d_model

    def differences(self, other: ModelConfig) -> dict[str, tuple[Any, Any]]:
        """Returns {field: (own value, value of the other)} of the fields that change the function.

        Fields that change no output at inference, such as `dropout`, are left out, and an unset
        `mlp_dim` equals the width that it stands for.
        """
        own, others = (
            dataclasses.replace(config, mlp_dim=config.mlp_width) for config in (self, other)
        )
        pairs = {
            field.name: (getattr(own, field.name), getattr(others, field.name))
            for field in dataclasses.fields(self)
            if field.metadata["changes_function"]
        }
        return {name: (a, b) for name, (a, b) in pairs.items() if a != b}
