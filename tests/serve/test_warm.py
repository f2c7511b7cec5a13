"""Tests that the warm start compiles all that requests will need."""

from __future__ import annotations

import jax
import pytest

from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.generate import decode_params
from gpt2_jax.inference.prefill import CHUNKS
from gpt2_jax.inference.requests import Request
from gpt2_jax.model.build import build_decoder
from gpt2_jax.serve.warm import Compilations, warm_start
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.engine_runs import finish, ids
from tests.inference.tiny import noisy_params, tiny_config


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
