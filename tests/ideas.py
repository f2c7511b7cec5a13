"""The table of ideas: what explains each, what shows it, and what computes it.

An idea's name is its anchor in docs/how_gpt2_works.md and in docs/how_gpt2_works.zh.md.
"""

from __future__ import annotations

from typing import NamedTuple

SECTIONS = (
    *("prompt", "embedding", "journey", "layernorm", "qkv", "scores", "mask", "softmax"),
    *("weighted", "merged", "projection", "mlp", "residual", "logits", "sampling", "appended"),
    *("cache", "training"),
)
"""The sections of the explorer, top to bottom; each is an idea of the same name."""

PANELS = ("card", "compare", "steps", "engine", "interventions", "export", "music", "number")


class Idea(NamedTuple):
    """Says where one idea is shown.

    Attributes:
      place: the section of the explorer, or its panel.
      address: of the array, as in `VIEWS`; None for a panel that shows no array of a text.
      function: what computes it, in `gpt2_jax`.
    """

    place: str
    address: str | None
    function: str


_ATTENTION, _MLP = "model.gpt2.Attention", "model.gpt2.MLP"
_SOFTMAX = "model.attention.reference_attention"

IDEAS = {
    "prompt": Idea("prompt", "tokens", "tokenizers.bpe.BPETokenizer.encode_array"),
    "characters": Idea("prompt", "tokens", "tokenizers.char.CharTokenizer"),
    "embedding": Idea("embedding", "embedding/{t}", "model.gpt2.GPT2.embed"),
    "journey": Idea("journey", "norms", "interpret.programs.run_block"),
    "dropout": Idea("journey", "residual/{t}", "model.dropout.Dropout"),
    "layernorm": Idea("layernorm", "ln/{l}/{which}/{t}", "model.norms.layer_norm"),
    "qkv": Idea("qkv", "qkv/{l}/{h}", "model.attention.split_qkv"),
    "low-dimensional": Idea("qkv", "qkv/{l}/{h}", _ATTENTION),
    "scores": Idea("scores", "head/{l}/{h}", _SOFTMAX),
    "mask": Idea("mask", "row/{l}/{h}/{t}", "model.attention.seen"),
    "bert": Idea("mask", "pattern/{l}/{h}", "interpret.interventions.Interventions"),
    "softmax": Idea("softmax", "pattern/{l}/{h}", _SOFTMAX),
    "weighted": Idea("weighted", "weighted/{l}/{h}", "interpret.attention.weighted"),
    "merged": Idea("merged", "z/{l}/{h}", _ATTENTION),
    "head-scores": Idea("merged", "head_scores", "interpret.attention.head_scores"),
    "projection": Idea("projection", "heads/{l}/{t}", "model.linear.Linear"),
    "low-rank-map": Idea("projection", "heads/{l}/{t}", _ATTENTION),
    "mlp": Idea("mlp", "mlp/{l}/{t}", _MLP),
    "facts": Idea("mlp", "neuron/{l}/{n}", "interpret.mlp.neuron_words"),
    "two-readings": Idea("mlp", "mlp_out/{l}/{t}", "model.linear.matmul"),
    "superposition": Idea("mlp", "neurons/{l}", "interpret.mlp.neurons"),
    "xor": Idea("mlp", "mlp/{l}/{t}", "model.activations.make_activation"),
    "residual": Idea("residual", "residual/{t}", "model.gpt2.Block"),
    "lens": Idea("residual", "lens/{t}", "interpret.programs.read_out"),
    "attribution": Idea("residual", "attribution/{t}/{token}", "interpret.attribution.attribution"),
    "logits": Idea("logits", "logits", "model.gpt2.GPT2.unembed"),
    "sampling": Idea("sampling", "logits", "inference.sampling.draw"),
    "top-k-top-p": Idea("sampling", "logits/{t}", "inference.cuts.kept"),
    "appended": Idea("appended", "logits/{t}", "inference.generate.generate_tokens"),
    "unconditional": Idea("appended", "logits", "inference.generate.encode_prompt"),
    "cache": Idea("cache", "qkv/{l}/{h}", "model.cache.append"),
    "training": Idea("training", "logits/{t}", "model.loss.weighted_cross_entropy"),
    "labels": Idea("training", "tokens", "training.step.weighted_loss"),
    "sizes": Idea("card", None, "model.flops.num_params"),
    "bytes": Idea("card", None, "model.params.cast"),
    "gpt3": Idea("card", None, "model.flops.num_params"),
    "encoder-decoder": Idea("mask", "pattern/{l}/{h}", _SOFTMAX),
    "transformer-xl": Idea("cache", "qkv/{l}/{h}", "model.relative.relative_scores"),
    "xlnet": Idea("mask", "row/{l}/{h}/{t}", "model.attention.seen"),
    "many-tasks": Idea("prompt", "tokens", "data.example_batches.ExampleLoader"),
}
"""Anchor -> idea, in the order of the pages."""
