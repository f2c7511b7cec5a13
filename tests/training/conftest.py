"""Programs that runs of equal configs share, because compiling takes most of these tests' time."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from gpt2_jax.config import Config
from gpt2_jax.training import loop, trainer

_compiled = {}
_initial = {}


def _key(config, mesh):
    """What the programs depend on."""
    sections = (config.model, config.compute, config.optimizer, config.schedule)
    train = dataclasses.replace(config.train, max_bad_steps=1, init_from=None)
    return (*sections, config.data.isolate_documents, train, mesh)


@pytest.fixture(scope="package", autouse=True)
def shared_programs():
    """Compiles a config's step, and computes its first state, once for all tests and fixtures."""
    compile_train_step, init_state = loop.compile_train_step, trainer.init_state

    def compile_once(config: Config, optimizer, mesh, rules, abstract, *, weighted, segmented):
        key = (*_key(config, mesh), weighted, segmented)
        if key not in _compiled:
            _compiled[key] = compile_train_step(
                config,
                optimizer,
                mesh,
                rules,
                abstract,
                weighted=weighted,
                segmented=segmented,
            )
        return _compiled[key]

    def init_once(config: Config, optimizer, abstract):
        key = _key(config, abstract.step.sharding.mesh)
        if key not in _initial:
            _initial[key] = init_state(config, optimizer, abstract)
        # A copy, because the first step takes over its memory.
        state = _initial[key]
        return jax.device_put(state, jax.tree.map(lambda x: x.sharding, state), may_alias=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_train_step", compile_once)
        patch.setattr(trainer, "init_state", init_once)
        yield
