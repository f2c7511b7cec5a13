"""Every knob of the model that changes its function: what is shown of it is what it computes.

The slow tests have each value of each knob alone. The combinations of `test_views` are the others.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import ModelConfig
from gpt2_jax.config.model import ACTIVATIONS, NORM_POSITIONS, NORMS, POSITIONS, QK_NORMS
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.interventions import Interventions
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.interpret.training_step import training_step
from gpt2_jax.interpret.views import VIEWS
from gpt2_jax.model.build import build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.tiny import noisy_params, tiny_config

TOKENS = [10, 200, 7, 7, 10, 200, 31, 256, 0]
KNOBS = {
    "num_layers": [1, 5],
    "num_heads": [1, 2, 32],
    "d_model": [8, 64],
    "context_length": [9, 700],
    "vocab_size": [300],
    "position": POSITIONS,
    "norm": NORMS,
    "norm_position": NORM_POSITIONS,
    "bias": [True, False],
    "mlp_dim": [3, 40],
    "activation": ACTIVATIONS,
    "layer_norm_epsilon": [0.0, 0.1],
    "x0_residual": [False, True],
    "value_residual": [False, True],
    "scale_attn_weights": [True, False],
    "scale_attn_by_inverse_layer_idx": [False, True],
    "attention_scale": [0.0, 0.3],
    "attention_window": [1, 3],
    "qk_norm": QK_NORMS,
    "logit_softcap": [0.0, 3.0],
    "tie_embeddings": [True, False],
    "mup_base_width": [16],
    "mup_base_head_dim": [4],
    "mup_input_alpha": [3.0],
    "mup_output_alpha": [2.0],
}
MORE = {  # what the knob needs beside it
    "mup_base_head_dim": {"mup_base_width": 16},
    "mup_input_alpha": {"mup_base_width": 16},
    "mup_output_alpha": {"mup_base_width": 16},
}
LORA = [
    {"lora_rank": 2},
    {"lora_rank": 1, "lora_alpha": 3.0, "lora_targets": "mlp.c_fc", "activation": "swiglu"},
]
DEEP = {"num_layers": 48, "num_heads": 25, "d_model": 50}
CASES = [
    *({name: value, **MORE.get(name, {})} for name, values in KNOBS.items() for value in values),
    *LORA,
    DEEP,
    {"norm_position": "post", "norm": "rms", "x0_residual": True, "value_residual": True},
]


def named(changes):
    return "-".join(f"{name}={value}" for name, value in changes.items())


def test_every_knob_that_changes_the_function_is_tried():
    knobs = {f.name for f in dataclasses.fields(ModelConfig) if f.metadata["changes_function"]}
    assert knobs == {*KNOBS}


@pytest.mark.slow
@pytest.mark.parametrize("changes", CASES, ids=named)
def test_what_is_shown_is_what_the_model_computes(changes):
    config = tiny_config(**{"scan_unroll": 1, **changes})
    params = noisy_params(config)
    tokens = TOKENS[: config.model.context_length]
    subject = Subject(config, params, ByteTokenizer())
    inspection = Inspection(Run(subject, tokens))
    # The module that trains: scanned, with adapters, and with any kernel.
    module = build_model(config.model, dataclasses.replace(config.compute, precision="highest"))
    expected = module.apply({"params": params}, jnp.asarray([tokens]), method=GPT2.logits)
    logits = np.stack([inspection[f"logits/{t}"] for t in range(len(tokens))])
    np.testing.assert_allclose(logits, np.asarray(expected[0])[0], rtol=1e-4, atol=1e-4)
    _check_views(inspection, config.model)
    _check_changes(inspection, config.model)
    if config.model.num_layers <= 5:
        found = training_step(subject, tokens, "sgd", 1e-4)
        assert found["loss_after"] < found["loss"] and np.isfinite(found["gradient_norm"])


def _check_views(inspection, config):
    last, t = config.num_layers - 1, len(TOKENS) - 1
    numbers = {"l": last, "h": config.num_heads - 1, "t": t, "i": 2 * last + 2, "which": 2}
    numbers |= {"n": config.mlp_width - 1, "token": config.vocab_size - 1}
    numbers |= {"k": config.head_dim - 1, "d": config.d_model - 1}
    for view in VIEWS:
        if view.address in ("ln/f/{t}", "gain/f") and config.norm_position == "post":
            continue
        array = inspection[view.address.format(**numbers)]
        unknown = view.address.startswith("lens")  # what follows the last token
        assert unknown or np.isfinite(array).all(), view.address
    cap = config.logit_softcap
    for token in (3, 200):
        logit = float(inspection["logits"][token])
        logit = cap * np.arctanh(logit / cap) if cap else logit
        parts = inspection[f"attribution/{t}/{token}"].astype(np.float64)
        assert abs(parts[:-1].sum() - logit) < 1e-4 * max(1, abs(logit), np.abs(parts).max())
    probabilities = np.exp(inspection["logits"] - np.logaddexp.reduce(inspection["logits"]))
    ids, shown = inspection[f"lens/{t}"][-1, :20].reshape(2, 10)
    np.testing.assert_allclose(shown, probabilities[ids.astype(int)], rtol=1e-4)
    inspection.summary()


def _check_changes(inspection, config):
    same = Interventions(
        heads={(0, 0): 1.0}, mlps={0: 1.0}, neurons={(config.num_layers - 1, 0): 1.0}
    )
    run = Run(inspection.run.subject, inspection.tokens, same)
    scale = max(1.0, abs(inspection["logits"]).max())
    np.testing.assert_allclose(run.logits(), inspection["logits"], atol=1e-5 * scale)
