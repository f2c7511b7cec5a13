"""The loss of examples: by hand, packed as alone on every kernel, and nothing from prompts."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.config import MeshConfig, from_dict
from gpt2_jax.data.batch import Batch
from gpt2_jax.data.example_batches import ExampleLoader, ExampleRows, fit
from gpt2_jax.evals.perplexity import Perplexity
from gpt2_jax.model import attention_kernels, gpt2
from gpt2_jax.model.build import abstract_params, build_model
from gpt2_jax.model.loss import nats_by_position, weighted_cross_entropy
from gpt2_jax.model.splash import splash_attention
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state
from gpt2_jax.training.step import weighted_loss
from gpt2_jax.training.trainer import Trainer
from tests.data.example_sets import EOT, make_examples, random_pairs
from tests.evals.test_perplexity import Tokenizer
from tests.training.tiny import lines, make_config, make_setup

V = 61
PAIRS = [((1, 2, 3), (4, 5)), ((6,), (7, 8, 9, 10)), ((11, 12), (13,))]


@functools.cache
def made_config(T, attention="reference"):
    model = {"num_layers": 2, "num_heads": 2, "d_model": 32, "context_length": T, "vocab_size": V}
    compute = {"dtype": "float32", "loss_chunk": 0, "attention": attention}
    return from_dict({"model": model | {"vocab_multiple": 8}, "compute": compute})


@functools.cache
def params_of(T):
    rng = np.random.default_rng(2)
    noise = lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(noise, abstract_params(made_config(T).model))


def packed(T, pairs, batch_size=1):
    rows = ExampleRows(fit(make_examples(pairs), T, "made"), batch_size=batch_size, padding=EOT)
    assert len(rows) == 1
    return rows.rows(0, range(batch_size))


def nats_of(config, batch, params):
    model = build_model(config.model, config.compute)
    return jax.jit(lambda p, b: weighted_loss(model, p, b))(params, batch)


def alone_by_hand(T, prompt, answer):
    """Nats of an answer and its end, from the logits of the example alone."""
    tokens = np.array([*prompt, *answer, EOT])
    inputs = np.zeros((1, T), np.int32)  # what follows the example changes nothing before it
    inputs[0, : len(tokens) - 1] = tokens[:-1]
    logits = np.asarray(logits_of(T)(params_of(T), inputs), np.float64)[0, :, :V]
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -sum(logs[i, tokens[i + 1]] for i in range(len(prompt) - 1, len(tokens) - 1))


@functools.cache
def logits_of(T):
    config = made_config(T)
    model = build_model(config.model, config.compute)
    return jax.jit(lambda p, tokens: model.apply({"params": p}, tokens)[0] @ p["wte"].T)


def test_the_loss_is_that_of_answers_and_ends_by_hand():
    batch = packed(16, PAIRS)
    expected = sum(alone_by_hand(16, *pair) for pair in PAIRS)
    assert batch.weights.sum() == sum(len(answer) + 1 for _, answer in PAIRS)
    assert nats_of(made_config(16), batch, params_of(16)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kernel", ["reference", "cpu", "splash"])
def test_packed_examples_have_the_losses_they_have_alone(kernel, monkeypatch):
    T = 128 if kernel == "splash" else 16
    by_hand = [alone_by_hand(T, *pair) for pair in PAIRS[:2]]
    if kernel == "splash":  # as plain operations, because there is no TPU
        attend = functools.partial(splash_attention, interpret=True)
        monkeypatch.setitem(
            attention_kernels._KERNELS,
            "splash",
            attention_kernels._KERNELS["splash"]._replace(attend=attend),
        )
        monkeypatch.setattr(gpt2, "choose", lambda model, compute: "splash")
    config = made_config(T, "reference" if kernel == "splash" else kernel)
    model = build_model(config.model, config.compute)
    together, alone = packed(T, PAIRS[:2]), [packed(T, [pair]) for pair in PAIRS[:2]]
    batch = Batch(*(np.concatenate(each) for each in zip(together, *alone, strict=True)))

    def rows(params, batch):
        weights = [jnp.where(jnp.arange(3)[:, None] == i, batch.weights, 0) for i in range(3)]
        return jnp.stack(
            [
                weighted_loss(
                    model, params, batch._replace(weights=w), cross_entropy=nats_by_position
                )
                for w in weights
            ]
        )

    nats_3xT = np.asarray(jax.jit(rows)(params_of(T), batch), np.float64)
    ends = np.cumsum([len(prompt) + len(answer) + 1 for prompt, answer in PAIRS[:2]])
    first, second = nats_3xT[0, : ends[0]].sum(), nats_3xT[0, ends[0] :].sum()
    assert first == pytest.approx(nats_3xT[1].sum(), rel=1e-5)
    assert second == pytest.approx(nats_3xT[2].sum(), rel=1e-5)
    assert [first, second] == pytest.approx(by_hand, rel=1e-5)


def test_labels_of_prompts_have_no_gradient():
    batch = packed(16, PAIRS)

    def nats(hidden):
        table = jnp.eye(V, dtype=jnp.float32)
        arguments = batch.targets, batch.weights, V, 0, "highest", 0.0
        return weighted_cross_entropy(hidden, table, *arguments)

    logits = np.random.default_rng(0).normal(size=(1, 16, V)).astype(np.float32)
    gradient = np.abs(np.asarray(jax.grad(nats)(logits))).max(-1)
    assert np.array_equal(gradient > 0, batch.weights > 0)


@pytest.mark.parametrize("axes", [(1, 1, 1), (2, 2, 2)])
def test_validation_is_nats_per_answer_token(axes):
    T = 16
    pairs = random_pairs(30)
    config = from_dict(
        {
            "model": {
                "num_layers": 2,
                "num_heads": 2,
                "d_model": 32,
                "context_length": T,
                "vocab_size": V,
                "vocab_multiple": 8,
            },
            "compute": {"dtype": "float32", "loss_chunk": 0},
            "train": {"batch_size": 8},
        }
    )
    mesh, rules = make_mesh(MeshConfig(*axes), jax.devices()[: int(np.prod(axes))]), Rules()
    abstract = abstract_state(config, make_optimizer(config), mesh, rules).params
    params = jax.device_put(params_of(T), jax.tree.map(lambda leaf: leaf.sharding, abstract))
    val = fit(make_examples(pairs), T, "made")
    evaluator = Perplexity(config, val, EndingTokenizer(), mesh, rules, abstract)
    numbers = dict(evaluator(params, lambda: None))
    nats = sum(alone_by_hand(T, *pair) for pair in pairs)
    tokens = sum(len(answer) + 1 for _, answer in pairs)
    assert set(numbers) == {"eval/loss", "eval/perplexity", "eval/bits_per_byte"}
    assert numbers["eval/loss"] == pytest.approx(nats / tokens, rel=1e-5)
    sizes = Tokenizer().byte_lengths()
    size = sum(int(sizes[[*answer, EOT]].sum()) for _, answer in pairs)
    assert numbers["eval/bits_per_byte"] == pytest.approx(nats / np.log(2) / size, rel=1e-5)


class EndingTokenizer(Tokenizer):
    eot = EOT


def example_setup(config, evaluators=()):
    fitted = fit(make_examples(random_pairs(101)), 16, "made")
    loader = ExampleLoader(fitted, batch_size=8, seed=config.train.seed, padding=EOT, folder="made")
    return make_setup(config, evaluators, source=loader, origins=loader.origins)


def losses_of(folder, *configs):
    """Trains in a folder, the first config for 5 steps if there are two; returns losses by step."""
    stops = (None,) if len(configs) == 1 else (5, None)
    for config, stop in zip(configs, stops, strict=True):
        Trainer(config, folder, example_setup(config)).run(stop)
    return {line["step"]: line["loss"] for line in lines(folder) if "loss" in line}


CONFIG = make_config(eval__every=0, log__every=1)


@pytest.mark.slow
def test_a_resumed_run_has_the_losses_of_the_whole_to_the_bit(tmp_path):
    whole = losses_of(tmp_path / "whole", CONFIG)
    assert len(whole) == 12
    assert losses_of(tmp_path / "halves", CONFIG, CONFIG) == whole


@pytest.mark.slow
def test_a_run_that_moves_to_another_mesh_keeps_its_batches(tmp_path):
    whole = losses_of(tmp_path / "whole", CONFIG)
    other = make_config(eval__every=0, log__every=1, mesh__data=1, mesh__fsdp=4, mesh__tensor=2)
    assert losses_of(tmp_path / "moved", CONFIG, other) == pytest.approx(whole, rel=1e-5)
