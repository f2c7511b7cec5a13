"""Counts the parameters of a model and the FLOPs of computing it."""

from __future__ import annotations

from gpt2_jax.config import ModelConfig
from gpt2_jax.model import lora, norms
from gpt2_jax.model.positions import ENCODINGS
from gpt2_jax.model.residual import NORM_POSITIONS, mix_num_params


def num_params(config: ModelConfig, *, padded: bool = False) -> int:
    """Returns the number of parameters, adapters included; a tied embedding counts once.

    Args:
      config: config of the model.
      padded: whether the padded rows of the vocabulary count.
    """
    d_model, mlp_width, vocab = config.d_model, config.mlp_width, config.vocab_size
    if padded:
        vocab = config.padded_vocab_size
    norm = norms.num_params(config)
    attention = 4 * d_model * d_model + norms.qk_num_params(config)
    into_mlp = 2 if config.is_gated else 1
    mlp = (into_mlp + 1) * d_model * mlp_width
    if config.bias:
        attention += 4 * d_model
        mlp += into_mlp * mlp_width + d_model
    tables = 1 if config.tie_embeddings else 2
    embeddings = tables * vocab * d_model + ENCODINGS[config.position].num_params(config)
    layer = attention + mlp + 2 * norm + mix_num_params(config)
    last_norm = norm if NORM_POSITIONS[config.norm_position].has_final else 0
    return embeddings + config.num_layers * layer + last_norm + lora.num_params(config)


def flops_per_token(config: ModelConfig) -> float:
    """Returns the FLOPs of a forward and backward pass per token: 6 N + 6 L T d, as in llm.c.

    N counts all parameters, since the embedding is the output matrix too; untied, the lookup
    computes nothing and is left out. Causal attention counts half of the T x T scores, and with a
    window of w only those inside it, w (2 T - w) / 2, although a kernel may compute all. nanoGPT's
    formula, 6 N + 12 L T d, reads 5-6 % higher on GPT-2. Relative positions compute a third product
    of T x T pairs; N leaves out their table, which does nothing else. With adapters (LoRA), all
    other parameters cost 4 instead of 6, because their gradients are not computed.
    """
    encoding = ENCODINGS[config.position]
    others = 0 if config.tie_embeddings else config.vocab_size * config.d_model
    others += encoding.num_params(config) if encoding.score_products else 0
    length = config.context_length
    window = min(config.attention_window or length, length)
    products = 2 + encoding.score_products
    pairs = window * (2 * length - window)
    attention = 3 * products * config.num_layers * config.d_model * pairs // length
    frozen = num_params(lora.without_adapters(config)) - others if config.lora_rank else 0
    return 6 * (num_params(config) - others) - 2 * frozen + attention
