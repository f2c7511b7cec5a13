from __future__ import annotations

import dataclasses

from gpt2_jax.config import Config, MeshConfig, ModelConfig
from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.planning import memory
from gpt2_jax.planning.memory import analytic_memory

_H100 = chip_named("h100-sxm")
_CONFIG = Config(model=ModelConfig(vocab_size=50257), mesh=MeshConfig(2, 4, 1))


def changed(section, **values):
    part = dataclasses.replace(getattr(_CONFIG, section), **values)
    return dataclasses.replace(_CONFIG, **{section: part})


def test_microbatches_sum_gradients_and_cut_activations():
    whole = analytic_memory(_CONFIG, _H100, 8).by_kind
    cut = analytic_memory(changed("train", accumulation_steps=4), _H100, 8).by_kind
    assert cut["gradients"] == 2 * whole["gradients"] == 2 * whole["parameters"]
    assert cut["activations"] < whole["activations"] / 2
    assert {kind: cut[kind] for kind in ("parameters", "optimizer")} == {
        kind: whole[kind] for kind in ("parameters", "optimizer")
    }


def test_remat_keeps_fewer_activations():
    sizes = [
        analytic_memory(changed("compute", remat=remat), _H100, 8).by_kind["activations"]
        for remat in ("none", "dots", "full")
    ]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3


def test_it_fits_up_to_what_the_chip_has():
    found = analytic_memory(_CONFIG, _H100, 8)
    assert found.fits and found.needed == sum(found.by_kind.values())
    assert found.available == _H100.hbm_bytes
    exactly = dataclasses.replace(_H100, usable_hbm_bytes=found.needed)
    assert analytic_memory(_CONFIG, exactly, 8).fits
    less = dataclasses.replace(_H100, usable_hbm_bytes=found.needed - 1)
    assert not analytic_memory(_CONFIG, less, 8).fits


def test_the_state_is_worked_out_once_for_a_mesh(monkeypatch):
    asked = []

    def abstract_state(*args):
        asked.append(args)
        return real(*args)

    real = memory.abstract_state
    monkeypatch.setattr(memory, "abstract_state", abstract_state)
    memory._state_bytes.cache_clear()
    for config in (
        _CONFIG,
        changed("compute", remat="full"),
        changed("train", accumulation_steps=2),
    ):
        analytic_memory(config, _H100, 8)
    assert len(asked) == 1
    # What the caller does with a plan's bytes is its own affair.
    analytic_memory(_CONFIG, _H100, 8).by_kind["gradients"] = 0
    assert analytic_memory(_CONFIG, _H100, 8).by_kind["gradients"] > 0
    analytic_memory(changed("model", d_model=1536), _H100, 8)
    analytic_memory(changed("mesh", data=1, fsdp=8), _H100, 8)
    assert len(asked) == 3


def test_documents_cost_a_gpu_a_mask_and_a_tpu_nothing():
    documents = changed("data", isolate_documents=True)
    rows, T = _CONFIG.train.batch_size // 8, _CONFIG.model.context_length
    for chip, cost in ((_H100, 5 * rows * T**2), (chip_named("v5e"), 0)):
        found = [analytic_memory(c, chip, 8).by_kind["activations"] for c in (_CONFIG, documents)]
        assert found[1] - found[0] == cost
