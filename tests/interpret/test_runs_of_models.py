"""What is said of models as a whole: their card, two of them, one over its steps, one step more."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gpt2_jax.api import _logits
from gpt2_jax.errors import UserError
from gpt2_jax.interpret.card import card, parts_of, sizes
from gpt2_jax.interpret.comparison import compare
from gpt2_jax.interpret.curves import curves
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.interpret.training_step import training_step
from gpt2_jax.model.flops import num_params
from gpt2_jax.tokenizers.bpe import BPETokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT, Vocabulary
from tests.inference.tiny import noisy_params, tiny_config

TEXT = [104, 105, 32, 104, 105]


@pytest.fixture(scope="module")
def subjects():
    config = tiny_config()
    return [Subject(config, noisy_params(config, seed), ByteTokenizer()) for seed in (0, 1)]


def logprobs(subject, params=None):
    params = subject.params if params is None else params
    return jax.nn.log_softmax(_logits(subject.model, params, jnp.asarray([TEXT]))[0])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bias": False, "tie_embeddings": False, "position": "rotary", "norm": "rms"},
        {"activation": "swiglu", "norm_position": "post", "position": "relative"},
        {"x0_residual": True, "qk_norm": "rms", "lora_rank": 4},
    ],
)
def test_the_parts_of_a_card_sum_to_the_parameters(changes):
    config = tiny_config(**changes).model
    found = card(config)
    assert sum(part["count"] for part in found["parts"]) == found["parameters"]
    assert found["parameters"] == num_params(config)
    assert all(part["count"] > 0 for part in found["parts"])
    json.dumps(found)


def test_parts_are_what_their_formulas_say():
    config = tiny_config().model
    letters = {"V": 257, "S": 32, "D": 32, "L": 2, "F": 128}
    for part in parts_of(config):
        formula = part["formula"].replace(" (", "*(").replace(" D", "*D").replace(" F", "*F")
        formula = formula.replace("+*", "+ ").replace("(*", "(")
        assert eval(formula, dict(letters)) == part["count"], part


def test_the_four_sizes_and_gpt3_are_the_published_ones():
    assert {entry["name"]: entry["parameters"] for entry in sizes()} == {
        "gpt2": 124_439_808,
        "medium": 354_823_168,
        "large": 774_030_080,
        "xl": 1_557_611_200,
        "gpt3": 174_604_259_328,
    }


def test_two_models_differ_by_the_divergence_of_their_predictions(subjects):
    runs = [Run(subject, TEXT) for subject in subjects]
    found = compare(*runs)
    a, b = (np.asarray(logprobs(subject), np.float64) for subject in subjects)
    np.testing.assert_allclose(found["kl"], (np.exp(a) * (a - b)).sum(-1), rtol=1e-4)
    assert found["aligned"] == "tokens" and np.shape(found["head_scores"]) == (2, 4, 3)
    ids = {entry[0] for entry in found["next"]}
    assert ids == {*np.argsort(-a[-1])[:10].tolist(), *np.argsort(-b[-1])[:10].tolist()}
    for i, _, of_a, of_b in found["next"]:
        assert (of_a, of_b) == pytest.approx((np.exp(a[-1, i]), np.exp(b[-1, i])), rel=1e-4)
    same = compare(runs[0], Run(subjects[0], TEXT))
    assert max(same["kl"]) == 0 and np.abs(same["head_scores"]).max() == 0


def test_other_tokens_of_one_text_are_aligned_on_its_bytes(subjects):
    tokenizer = CharTokenizer("hié ")
    config = tiny_config(tokenizer)
    of_chars = Subject(config, noisy_params(config), tokenizer)
    a = Run(subjects[0], ByteTokenizer().encode("hié h"))
    b = Run(of_chars, tokenizer.encode("hié h"))
    found = compare(a, b)
    # é is two bytes, and one character.
    assert found["aligned"] == "bytes" and [row[0] for row in found["bytes"]] == [1, 2, 4, 5, 6]
    assert found["bytes"][0][1:] == [0, 0] and found["bytes"][-1][1] > found["bytes"][1][1] > 0
    with pytest.raises(UserError, match="different texts"):
        compare(a, Run(of_chars, tokenizer.encode("hi")))


def test_surprise_of_both_begins_behind_the_same_byte(subjects):
    ranks = {bytes([i]): i for i in range(256)} | {b"hi": 256}
    tokenizer = BPETokenizer(Vocabulary(ranks, {END_OF_TEXT: 257}), 257)
    config = tiny_config(tokenizer)
    of_pieces = Subject(config, noisy_params(config), tokenizer)
    a, b = Run(subjects[0], TEXT), Run(of_pieces, tokenizer.encode("hi hi"))
    rows = compare(a, b)["bytes"]
    # Of the first "hi", b predicts no byte, and a the second one.
    assert [row[0] for row in rows] == [2, 3, 5] and rows[0][1:] == [0, 0]
    for column, run, tokens in ((1, a, [2, 3, 4]), (2, b, [1, 2])):
        entries = Inspection(run).summary()["tokens"]
        expected = -sum(entries[t]["logprob"] for t in tokens)
        assert rows[-1][column] == pytest.approx(expected, rel=1e-5)


def test_curves_follow_a_text_from_step_to_step(subjects):
    lines = [*curves([10, 20], lambda step: subjects[step // 10 - 1], TEXT)]
    assert [line["step"] for line in lines] == [10, 20]
    for line, subject in zip(lines, subjects, strict=True):
        picked = np.asarray(logprobs(subject))[np.arange(4), TEXT[1:]]
        assert line["loss"] == pytest.approx(-picked.mean(), rel=1e-4)
    assert lines[1]["kl"] == 0 < lines[0]["kl"]
    (alone,) = curves([10], lambda step: subjects[0], [5])
    assert alone["loss"] is None


def test_a_small_step_lowers_the_loss_by_rate_times_squared_gradient(subjects):
    subject = subjects[0]
    before = jax.tree.map(np.array, subject.params)
    found = training_step(subject, TEXT, "sgd", 1e-4)
    fall = found["loss"] - found["loss_after"]
    assert fall == pytest.approx(1e-4 * found["gradient_norm"] ** 2, rel=0.02)
    expected = np.asarray(logprobs(subject), np.float64)
    for t, entry in enumerate(found["predictions"]):
        assert (entry["token"], entry["label"]) == (chr(TEXT[t]), chr(TEXT[t + 1]))
        assert entry["loss"] == pytest.approx(-expected[t, TEXT[t + 1]], rel=1e-4)
        assert entry["probability"] == pytest.approx(np.exp(-entry["loss"]), rel=1e-6)
        assert entry["probability_after"] == pytest.approx(np.exp(-entry["loss_after"]), rel=1e-6)
    assert [entry[0] for entry in found["next"]] == np.argsort(-expected[-1])[:10].tolist()
    jax.tree.map(np.testing.assert_array_equal, before, subject.params)
    json.dumps(found)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.05), ("adamw", 1e-3)])
def test_a_training_step_is_one_update_of_all_parameters(subjects, optimizer, rate):
    subject = subjects[0]
    found = training_step(subject, TEXT, optimizer, rate)

    def loss(params):
        return -jnp.mean(logprobs(subject, params)[jnp.arange(4), jnp.asarray(TEXT[1:])])

    gradient = jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(subject.params))
    # AdamW's first step with fresh moments is g / (|g| + eps).
    after = jax.tree.map(
        lambda x, g: x - rate * (g if optimizer == "sgd" else g / (np.abs(g) + 1e-8)),
        subject.params,
        gradient,
    )
    expected = np.asarray(logprobs(subject, after), np.float64)
    got = [np.log(entry["probability_after"]) for entry in found["predictions"]]
    np.testing.assert_allclose(got, expected[np.arange(4), TEXT[1:]], rtol=2e-3)
    best = np.argsort(-expected[-1])[:10]
    assert [entry[0] for entry in found["next_after"]] == best.tolist()
    assert found["gradient_norm"] == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)


@pytest.mark.parametrize(
    ("tokens", "optimizer", "rate", "words"),
    [
        ([1], "sgd", 0.1, "2 to 32 tokens"),
        ([1] * 33, "sgd", 0.1, "2 to 32 tokens"),
        (TEXT, "lion", 0.1, "sgd or adamw"),
        (TEXT, "sgd", 0, "must be positive"),
        (TEXT, "sgd", float("nan"), "must be positive"),
    ],
)
def test_a_step_that_cannot_be_taken_is_one_line(subjects, tokens, optimizer, rate, words):
    with pytest.raises(UserError, match=words):
        training_step(subjects[0], tokens, optimizer, rate)
