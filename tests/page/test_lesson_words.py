"""Tests that a lesson names the tokens of its arrays."""

from __future__ import annotations

import numpy as np

from gpt2_jax.api import LanguageModel
from gpt2_jax.formats.load import Model
from gpt2_jax.serve.lesson_arrays import focus_of, packed
from gpt2_jax.serve.lesson_words import words
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.tiny import noisy_params, tiny_config


def test_every_id_in_the_arrays_of_a_lesson_has_a_name() -> None:
    config = tiny_config(ByteTokenizer())
    model = LanguageModel(Model(config, noisy_params(config), ByteTokenizer(), 0, None))
    inspection = model.inspect("it is")
    arrays, _ = packed(inspection, focus_of({}, 5), 0)
    named = dict(words(inspection, arrays))
    wanted = {*np.argsort(-inspection["logits"])[:10].tolist()}
    for address in arrays:
        name = address.partition("/")[0]
        columns = {"lens": slice(0, 10), "lens_grid": slice(0, 1)}.get(name)
        if columns:
            wanted |= {*inspection[address][:, columns].astype(int).reshape(-1).tolist()}
        if name == "neuron":
            wanted |= {*inspection[address][[0, 2]].astype(int).reshape(-1).tolist()}
    assert wanted <= named.keys()
    assert len(wanted) < config.model.vocab_size
    assert all(named[ord(c)] == c for c in "az" if ord(c) in named)
