"""Takes every variant of the model and every optimizer through the ordinary commands."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.config import ModelConfig, knobs
from gpt2_jax.formats.huggingface import EXPORTED_ACTIVATIONS

# A value other than GPT-2's for the knobs of the model that are not a choice of names.
_OTHERS = {
    "bias": ["false"],
    "mlp_dim": ["24"],
    "attention_scale": ["0.3"],
    "attention_window": ["5"],
    "logit_softcap": ["15"],
    "x0_residual": ["true"],
    "value_residual": ["true"],
    "scale_attn_weights": ["false"],
    "scale_attn_by_inverse_layer_idx": ["true"],
    "tie_embeddings": ["false"],
    "mup_base_width": ["16"],
}
# Knobs that GPT-2's own formats and Hugging Face's know, or that change no output.
_EXPORTED = {
    "activation": EXPORTED_ACTIVATIONS,
    **dict.fromkeys(("mlp_dim", "residual_init", "tie_embeddings")),
    **dict.fromkeys(("scale_attn_weights", "scale_attn_by_inverse_layer_idx")),
}


def _variants() -> list[tuple[str, str]]:
    """Returns (knob, value) of every value that is not the default."""
    choices = {
        knob.key: [value for value in knob.choices if value != knob.default]
        for knob in knobs()
        if knob.choices and knob.key.startswith(("model.", "optimizer.name", "schedule.name"))
    }
    pairs = choices | {f"model.{name}": values for name, values in _OTHERS.items()}
    pairs["optimizer.ema_decay"] = ["0.9"]
    return [(knob, value) for knob, values in pairs.items() for value in values]


def test_every_knob_of_the_function_has_a_variant():
    """Sizes are varied by all other tests."""
    sizes = {"num_layers", "num_heads", "d_model", "context_length", "vocab_size"}
    fields = dataclasses.fields(ModelConfig)
    changing = {field.name for field in fields if field.metadata["changes_function"]}
    varied = {knob.removeprefix("model.") for knob, _ in _variants()}
    with_a_base_width = {"mup_base_head_dim", "mup_input_alpha", "mup_output_alpha"}
    assert changing - sizes - with_a_base_width - {"layer_norm_epsilon"} <= varied


@pytest.mark.slow
@pytest.mark.parametrize(("knob", "value"), _variants())
def test_a_variant_trains_resumes_samples_scores_and_is_exported_or_refused(
    knob, value, house: Path, capsys
):
    train = ["train", "--config", "tiny.py", "--workdir", "new", f"--config.{knob}={value}"]
    assert main([*train, "--config.train.total_steps=2"]) == 0
    if knob != "schedule.name":
        train.append("--config.schedule.allow_rewind=true")
    assert main([*train, "--config.train.total_steps=4"]) == 0
    assert "step 4/4" in capsys.readouterr().err
    for words in (
        ["sample", "--prompt", "To be", "--max_new_tokens", "5"],
        ["eval", "--text", "text.txt"],
    ):
        assert main([words[0], "--model", "new", *words[1:]]) == 0
        assert capsys.readouterr().out
    name = knob.removeprefix("model.")
    status = main(["convert", "--model", "new", "--to", "hf", "--out", "exported"])
    if not knob.startswith("model.") or (name in _EXPORTED and _is_exported(name, value)):
        assert status == 0
    else:
        assert status == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and knob in error and error.count("\n") == 1
        assert not Path("exported").exists()


def _is_exported(name: str, value: str) -> bool:
    return _EXPORTED[name] is None or value in _EXPORTED[name]
