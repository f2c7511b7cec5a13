"""Each random stream of a run has its seed, and the compiled step has none of them."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from gpt2_jax.config import Config, from_dict
from gpt2_jax.data.token_sets import open_sets
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.prepare.corpora import Document
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state, init_params
from gpt2_jax.training.step import compile_train_step, step_numbers


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    data = tmp_path_factory.mktemp("seeds") / "data"
    prepare([Document("data", "one fish two fish " * 80)], "byte", data)
    model = {"num_layers": 1, "num_heads": 2, "d_model": 16, "context_length": 16}
    return from_dict(
        {
            "model": model | {"vocab_size": 257, "vocab_multiple": 1, "dropout": 0.1},
            "compute": {"dtype": "float32", "loss_chunk": 0},
            "data": {"path": str(data), "tokenizer": "byte"},
            "schedule": {"warmup_steps": 1},
            "train": {"batch_size": 2, "total_steps": 9, "seed": 3},
        }
    )


def with_train(config: Config, **changes) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


def streams(config: Config) -> dict[str, np.ndarray]:
    """What each stream gives first."""
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    abstract = abstract_state(config, make_optimizer(config), mesh, Rules())
    return {
        "init": np.asarray(init_params(config, abstract.params)["wte"]),
        "data": open_sets(config).source.rows(0, range(config.train.batch_size)).inputs,
        "dropout": np.asarray(step_numbers(config, mesh).dropout_key),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["init", "data", "dropout"])
def test_a_seed_changes_its_own_stream_alone(config, name):
    before = streams(config)
    after = streams(with_train(config, **{f"{name}_seed": 4}))
    changed = [each for each in before if not np.array_equal(before[each], after[each])]
    assert changed == [name]


def test_the_seed_is_that_of_every_stream_without_its_own(config):
    seeds = {f"{name}_seed": 3 for name in ("init", "data", "dropout")}
    own = streams(with_train(config, seed=0, **seeds))
    for name, value in streams(config).items():
        np.testing.assert_array_equal(value, own[name])
    assert with_train(config, seed=7, data_seed=0).train.seeds == (7, 0, 7)


@pytest.mark.slow
def test_runs_of_other_seeds_and_rates_load_the_program_of_the_first(config):
    other = with_train(config, seed=11, dropout_seed=12, total_steps=90)
    rates = {"learning_rate": 0.5, "min_learning_rate": 0.1, "warmup_steps": 7}
    other = dataclasses.replace(other, schedule=dataclasses.replace(other.schedule, **rates))
    events = []

    def listen(event, **_):
        events.append(event.rpartition("/")[2])

    jax.monitoring.register_event_listener(listen)
    try:
        for each in (config, other):
            mesh, optimizer = make_mesh(each.mesh, jax.devices()[:1]), make_optimizer(each)
            abstract = abstract_state(each, optimizer, mesh, Rules())
            events.clear()
            compile_train_step(each, optimizer, mesh, Rules(), abstract)
    finally:
        jax.monitoring.unregister_event_listener(listen)
    found = [event for event in events if event in ("cache_hits", "cache_misses")]
    assert found == ["cache_hits"]
