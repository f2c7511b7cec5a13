"""Interventions as JSON, and activations of another text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.interpret.interventions import Interventions, parse
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.tiny import noisy_params, tiny_config

TEXT, OTHER = [1, 2, 3, 4, 5], [9, 8, 7, 6]


@pytest.fixture(scope="module")
def subject():
    config = tiny_config()
    return Subject(config, noisy_params(config), ByteTokenizer())


@pytest.fixture(scope="module")
def runs(subject):
    return {"text": Run(subject, TEXT), "other": Run(subject, OTHER)}


def find(runs):
    def donor(name):
        if name not in runs:
            raise UserError(f"there is no run {name}")
        return runs[name]

    return donor


def test_json_becomes_the_interventions_it_names(runs):
    value = {
        "heads": [[0, 1, 0.0], [1, 3, 2]],
        "mlps": [[1, 0.5]],
        "neurons": [[0, 127, -1.0]],
        "unmasked": [0, 1],
    }
    found = parse(json.loads(json.dumps(value)), find(runs))
    expected = Interventions({(0, 1): 0.0, (1, 3): 2}, {1: 0.5}, {(0, 127): -1.0}, [0, 1], swaps=[])
    assert found == expected and found and not parse({}, find(runs))


@pytest.mark.parametrize("site", ["resid_post", "mlp", "z"])
def test_a_swap_puts_the_activation_of_the_other_text_in_its_place(subject, runs, site):
    swap = {"site": site, "layer": 0, "head": 2, "position": 4}
    swap["from"] = {"run": "other", "position": 1}
    changes = parse({"swaps": [swap]}, find(runs))
    assert changes.swaps[0].donor.base is None  # which would keep all of the other run
    run = Run(subject, TEXT, changes)
    name = {"resid_post": "resid_post", "mlp": "mlp/out", "z": "attn/z"}[site]
    head = (2,) if site == "z" else ()
    donor = runs["other"].block(0)[name][1, *head]
    np.testing.assert_allclose(run.block(0)[name][4, *head], donor, rtol=1e-6)
    assert abs(run.logits() - runs["text"].logits()).max() > 1e-3
    # Tokens before it know nothing of it.
    np.testing.assert_allclose(run.logits(3), runs["text"].logits(3), rtol=1e-5, atol=1e-5)


def test_the_last_stream_of_another_text_brings_its_prediction(subject, runs):
    swap = {
        "site": "resid_post",
        "layer": 1,
        "position": 4,
        "from": {"run": "other", "position": 3},
    }
    run = Run(subject, TEXT, parse({"swaps": [swap]}, find(runs)))
    np.testing.assert_allclose(run.logits(), runs["other"].logits(), rtol=1e-5, atol=1e-5)


def test_its_own_activation_changes_nothing(subject, runs):
    swap = {"site": "mlp", "layer": 1, "position": 2, "from": {"run": "text", "position": 2}}
    run = Run(subject, TEXT, parse({"swaps": [swap]}, find(runs)))
    np.testing.assert_allclose(run.logits(), runs["text"].logits(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "changes must be an object"),
        ({"head": []}, "unknown 'head'; did you mean 'heads'?"),
        ({"heads": 3}, "changes must be an object with lists"),
        ({"heads": [[0, 1, 1.0], [0, 1]]}, "heads[1] must hold indices and a factor"),
        ({"heads": [[0, True, 1.0]]}, "heads[0] must hold indices and a factor"),
        ({"heads": [[0, 1, float("nan")]]}, "heads[0] must hold indices and a factor"),
        ({"heads": [[0, 1, 1.0], [0, 4, 1.0]]}, "heads[1]: head must be between 0 and 3, not 4"),
        ({"heads": [[0, 1, 1.0], [0, 1, 0.5]]}, "heads[1] names [0, 1] again: give it one factor"),
        ({"mlps": [[2, 1.0]]}, "mlps[0]: layer must be between 0 and 1"),
        ({"mlps": [[0, 1], [1, 1], [0, 1]]}, "mlps[2] names [0] again"),
        ({"neurons": [[0, 128, 1.0]]}, "neurons[0]: neuron must be between 0 and 127"),
        ({"neurons": [[0, 5, 1.0]] * 2}, "neurons[1] names [0, 5] again"),
        ({"unmasked": [0, -1]}, "unmasked[1]: layer must be between 0 and 1"),
        ({"unmasked": ["0"]}, "unmasked[0] must hold indices"),
        ({"swaps": [{}]}, "swaps[0] must be an object whose site is one of"),
        ({"swaps": [{"site": "mlp", "layer": 0, "position": 0}]}, "swaps[0] needs from"),
        (
            {"swaps": [{"site": "mlp", "layer": 0, "position": 0, "from": {"run": "x"}}]},
            "swaps[0] (layer, position, from.position) must hold indices",
        ),
        (
            {
                "swaps": [
                    {"site": "z", "layer": 0, "position": 9, "from": {"run": "text", "position": 0}}
                ]
            },
            "swaps[0]: position must be between 0 and 4",
        ),
        (
            {
                "swaps": [
                    {"site": "z", "layer": 0, "position": 0, "from": {"run": "no", "position": 0}}
                ]
            },
            "swaps[0]: there is no run no",
        ),
    ],
)
def test_what_the_model_has_no_place_for_is_one_line(subject, runs, value, words):
    with pytest.raises(UserError) as error:
        Run(subject, TEXT, parse(value, find(runs)))
    assert str(error.value).startswith(words) and "\n" not in str(error.value)
