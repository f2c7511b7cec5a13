"""Tests the warm starts: that of the engine compiles all, that of the explorer runs all views."""

from __future__ import annotations

import jax
import pytest

from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.generate import decode_params
from gpt2_jax.inference.prefill import CHUNKS
from gpt2_jax.inference.requests import Request
from gpt2_jax.interpret.views import VIEWS
from gpt2_jax.model.build import build_decoder
from gpt2_jax.serve import explorer_warm
from gpt2_jax.serve.insights import Insights
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.models import Models
from gpt2_jax.serve.served import Limits, served
from gpt2_jax.serve.warm import Compilations, warm_start
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.engine_runs import finish, ids
from tests.inference.tiny import noisy_params, tiny_config
from tests.serve.serving import tiny_model


def test_the_explorer_warms_what_a_model_without_a_final_norm_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explorer_warm, "LENGTHS", (16,))
    limits, metrics = Limits(), Metrics()
    model = served("tiny", tiny_model(norm_position="post"), limits, metrics)
    insights = Insights(Models([model], limits, metrics))
    done = 0
    for piece in explorer_warm.warm_pieces([model], insights):
        piece()
        done += 1
    assert done == 2 + len(VIEWS) - len({"ln/f/{t}", "gain/f"})


@pytest.mark.slow
def test_prompts_of_several_chunks_use_programs_that_are_warm() -> None:
    config = tiny_config(context_length=300, num_layers=1, scan_unroll=1)
    decoder = build_decoder(config.model, config.compute)
    # Restored parameters are bound to a device, as these are.
    params = jax.device_put(decode_params(decoder, noisy_params(config)), jax.devices()[0])
    engine = Engine(decoder, params, ByteTokenizer(), num_slots=2)
    compilations = Compilations()
    compilations.listen_to_this_thread()
    try:
        warm_start(engine)
        assert compilations.count
        compilations.reset()
        for length in (1, *(CHUNKS[-1] + size + 1 for size in CHUNKS), 299):
            for logprobs in (False, True):
                request = Request(ids(length, length), 1, prompt_logprobs=logprobs)
                finish(engine, *engine.submit(request))
        assert compilations.count == 0, compilations.names
    finally:
        compilations.close()
