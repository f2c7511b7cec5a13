"""Tests which arguments of lm-eval our model takes, and that it refuses all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.evals.harness import GPT2JaxLM
from tests.evals.plain_forwards import needs_lm_eval


@needs_lm_eval
def test_the_constructor_takes_what_lm_eval_passes_and_refuses_the_rest(run: Path) -> None:
    extra = {"batch_size": "auto:4", "max_batch_size": 3, "device": "cuda:0"}
    made = GPT2JaxLM.create_from_arg_string(f"model={run},dtype=bfloat16,seed=3", extra)
    assert made.get_model_info()["model_dtype"] == "bfloat16" and made._rows == 3
    made = GPT2JaxLM.create_from_arg_obj(
        {"model": str(run), "trust_remote_code": True}, {"batch_size": "7", "device": None}
    )
    assert made._rows == 7 and made.get_model_info()["model_step"] == 2
    wrong = {
        "no argument pretrained, peft;": {"pretrained": "x", "peft": "y"},
        "dtype must be one of auto, float32, bfloat16, not 'half'": {"dtype": "half"},
        "batch_size must be": {"batch_size": 0},
        "tokens_per_batch must be": {"tokens_per_batch": 0},
        "seed must be": {"seed": 1.5},
        "device=cuda:1, but JAX runs on cpu": {"device": "cuda:1"},
        "no model at": {"model": "/nowhere/at/all"},
    }
    for message, arguments in wrong.items():
        with pytest.raises(UserError, match=message):
            GPT2JaxLM(**({"model": run} | arguments))
    with pytest.raises(UserError, match="--model_args model=M"):
        GPT2JaxLM()
