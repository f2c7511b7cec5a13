"""The knobs that determine the function that the model is."""

from __future__ import annotations

import dataclasses
from typing import Any

from gpt2_jax.config.knob import knob

# Names of what the package `model` implements, and the config cannot import.
POSITIONS = ("learned", "rotary", "alibi", "relative", "none")
# Those that know no position beyond the context length; all others go on, up to some length that
# no device has the memory to exceed by far, because attention scores grow with its square.
BOUNDED_POSITIONS = ("learned",)
LONGEST = 2**16
NORMS = ("layer", "rms")
NORM_POSITIONS = ("pre", "post")
QK_NORMS = ("none", "rms")
RESIDUAL_INITS = ("scaled", "plain", "zero")
# Activations that multiply two products of the input; Hugging Face's GPT-2 has none of them.
GATED_ACTIVATIONS = ("swiglu",)
# Apart from the gated ones, these are Hugging Face's names.
ACTIVATIONS = (
    *("gelu_new", "gelu", "relu", "silu", "quick_gelu", "tanh", "relu2"),
    *GATED_ACTIVATIONS,
)


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
        "how positions enter: a learned table, rotated queries and keys, scores that fall with the "
        "distance (ALiBi), scores with a learned table of distances (Music Transformer), or not at "
        "all",
        choices=POSITIONS,
    )
    norm: str = knob("layer", "normalization: LayerNorm or RMSNorm", choices=NORMS)
    norm_position: str = knob(
        "pre",
        "norms before attention and MLP and behind the last block, or post: behind each addition "
        "to the residual stream",
        choices=NORM_POSITIONS,
    )
    bias: bool = knob(True, "linear layers and LayerNorms have biases")
    mlp_dim: int | None = knob(
        None,
        "width of the MLP; unset: 4 d_model, or with swiglu the multiple of 8 that gives the MLP "
        "nearly as many parameters",
        low=1,
    )
    activation: str = knob(
        "gelu_new", "activation of the MLP; gelu_new is GELU's tanh form", choices=ACTIVATIONS
    )
    residual_init: str = knob(
        "scaled",
        "initial deviation of the projections that end attention and MLP: 0.02 / sqrt(2 "
        "num_layers), plain 0.02, or zero",
        choices=RESIDUAL_INITS,
        changes_function=False,
    )
    layer_norm_epsilon: float = knob(1e-5, "added to the variance in norms", low=0)
    x0_residual: bool = knob(
        False, "each layer adds the embeddings to the residual stream, by learned factors"
    )
    value_residual: bool = knob(
        False, "each layer adds the first layer's values to its own, by learned factors"
    )
    scale_attn_weights: bool = knob(True, "divide attention scores by sqrt(head width)")
    scale_attn_by_inverse_layer_idx: bool = knob(
        False, "also divide attention scores of layer i, counted from 1, by i"
    )
    attention_scale: float | None = knob(
        None, "factor of attention scores; unset: 1 / sqrt(head width)", low=0
    )
    attention_window: int = knob(
        0, "how many tokens each token sees, itself and those just before it; 0: all", low=0
    )
    qk_norm: str = knob(
        "none", "normalize the queries and keys of each head: not, or by RMSNorm", choices=QK_NORMS
    )
    logit_softcap: float = knob(
        0.0, "logits z become c tanh(z / c) for this c; 0 leaves them as they are", low=0
    )
    tie_embeddings: bool = knob(True, "use the token embedding as the output matrix")
    lora_rank: int = knob(
        0,
        "rank of the adapters (LoRA) that are trained in place of the parameters, which stay "
        "frozen; 0: no adapters",
        low=0,
        changes_function=False,
    )
    lora_alpha: float = knob(
        16.0, "adapters are multiplied by lora_alpha / lora_rank", low=0, changes_function=False
    )
    lora_targets: str = knob(
        "attn.c_attn,attn.c_proj,mlp.c_fc,mlp.c_proj",
        "linear layers that get adapters",
        changes_function=False,
    )
    lora_dropout: float = knob(
        0.0,
        "probability of dropping an input of the adapters while training",
        low=0,
        below=1,
        changes_function=False,
    )
    mup_base_width: int | None = knob(
        None,
        "d_model at which muP, the maximal update parametrization, is the standard one, so that a "
        "learning rate tuned there holds at every width; unset: no muP",
        low=1,
    )
    mup_base_head_dim: int | None = knob(
        None,
        "head width K0 of the base model of muP, for scores times sqrt(K0) / head width; unset: "
        "the same head width as here, because models of all widths have it",
        low=1,
    )
    mup_input_alpha: float = knob(1.0, "with muP, factor of the embeddings", low=0)
    mup_output_alpha: float = knob(
        1.0, "with muP, factor of the logits beside mup_base_width / d_model", low=0
    )

    @property
    def padded_vocab_size(self) -> int:
        """Returns the rows of the embedding table: `vocab_size` rounded up to `vocab_multiple`."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    @property
    def head_dim(self) -> int:
        """Returns the width of one attention head."""
        return self.d_model // self.num_heads

    @property
    def longest(self) -> int:
        """Returns the most tokens that it can compute at once, whatever length it was trained on.

        That is the context length if positions end there, and otherwise `LONGEST` at least.
        """
        bounded = self.position in BOUNDED_POSITIONS
        return self.context_length if bounded else max(self.context_length, LONGEST)

    @property
    def mlp_width(self) -> int:
        """Returns the width of the MLP: `mlp_dim`, or GPT-2's 4 d_model.

        A gated MLP has three matrices instead of two. Unset, its width is the multiple of 8 that is
        nearest to what gives it as many parameters: (2 D F + F) / (3 D + 2), F GPT-2's width.
        """
        width = 4 * self.d_model
        if self.mlp_dim is not None or not self.is_gated:
            return self.mlp_dim or width
        equal = width * (2 * self.d_model + 1) / (3 * self.d_model + 2)
        return max(8 * round(equal / 8), 8)

    @property
    def is_gated(self) -> bool:
        """Returns whether the MLP multiplies two products of its input."""
        return self.activation in GATED_ACTIVATIONS

    @property
    def score_scale(self) -> float:
        """Returns the factor of attention scores: 1 / sqrt(K) in GPT-2, sqrt(K0) / K in muP."""
        if self.attention_scale is not None:
            return self.attention_scale
        if not self.scale_attn_weights:
            return 1.0
        of_base = self.mup_base_head_dim or self.head_dim
        return (of_base / self.head_dim) ** 0.5 * self.head_dim**-0.5

    @property
    def mup_width_multiplier(self) -> float:
        """Returns m, the width over the base width of muP; 1 without muP."""
        return self.d_model / (self.mup_base_width or self.d_model)

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
