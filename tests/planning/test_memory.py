from __future__ import annotations

import dataclasses

import pytest

from gpt2_jax.config import ComputeConfig, Config, MeshConfig, ModelConfig, TrainConfig
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


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_activations_follow_the_width_of_the_mlp_and_its_gate(remat):
    def activations(**model):
        config = dataclasses.replace(
            changed("compute", remat=remat), model=dataclasses.replace(_CONFIG.model, **model)
        )
        return analytic_memory(config, _H100, 8).by_kind["activations"]

    plain, wide = activations(), activations(mlp_dim=8 * 768)
    gated = activations(activation="swiglu", mlp_dim=4 * 768)
    assert activations(mlp_dim=4 * 768) == plain
    if remat == "full":
        assert plain == wide == gated
        return
    tokens = _CONFIG.train.batch_size // 8 * 1024
    array = tokens * 12 * 4 * 768 * 2
    assert gated - plain == pytest.approx(array, abs=1)
    assert wide - plain == pytest.approx({"none": 2, "dots": 1}[remat] * array, abs=1)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_relative_positions_need_their_table_and_one_more_product_of_pairs(remat):
    def kinds(position):
        config = changed("compute", remat=remat)
        model = dataclasses.replace(config.model, position=position)
        return analytic_memory(dataclasses.replace(config, model=model), _H100, 8).by_kind

    alibi, relative = kinds("alibi"), kinds("relative")
    scores = _CONFIG.train.batch_size // 8 * 12 * 1024**2
    assert relative["activations"] - alibi["activations"] == pytest.approx(4 * scores, abs=1)
    table = 12 * 1024 * 768 * 4 // 4  # divided over fsdp
    assert relative["parameters"] - alibi["parameters"] == table
    assert relative["optimizer"] - alibi["optimizer"] == 2 * table


def test_it_fits_up_to_what_the_chip_has():
    found = analytic_memory(_CONFIG, _H100, 8)
    assert found.fits and found.needed == sum(found.by_kind.values())
    assert found.available == _H100.available_bytes
    exactly = dataclasses.replace(_H100, usable_hbm_bytes=found.needed)
    assert analytic_memory(_CONFIG, exactly, 8).fits
    less = dataclasses.replace(_H100, usable_hbm_bytes=found.needed - 1)
    assert not analytic_memory(_CONFIG, less, 8).fits


def test_the_state_is_traced_once_for_a_model_and_sharded_once_for_a_mesh(monkeypatch):
    calls = {"boxed_state": 0, "shard_state": 0}

    def counted(name):
        real = getattr(memory, name)

        def function(*args):
            calls[name] += 1
            return real(*args)

        monkeypatch.setattr(memory, name, function)

    counted("boxed_state")
    counted("shard_state")
    memory._state_bytes.cache_clear()
    memory._boxed_state.cache_clear()
    for config in (
        _CONFIG,
        changed("compute", remat="full"),
        changed("train", accumulation_steps=2),
    ):
        analytic_memory(config, _H100, 8)
    assert calls == {"boxed_state": 1, "shard_state": 1}
    # What the caller does with a plan's bytes is its own affair.
    analytic_memory(_CONFIG, _H100, 8).by_kind["gradients"] = 0
    assert analytic_memory(_CONFIG, _H100, 8).by_kind["gradients"] > 0
    analytic_memory(changed("mesh", data=1, fsdp=8), _H100, 8)
    assert calls == {"boxed_state": 1, "shard_state": 2}
    analytic_memory(changed("model", d_model=1536), _H100, 8)
    assert calls == {"boxed_state": 2, "shard_state": 3}


def test_documents_cost_a_gpu_a_mask_and_a_tpu_nothing():
    documents = changed("data", isolate_documents=True)
    rows, T = _CONFIG.train.batch_size // 8, _CONFIG.model.context_length
    for chip, cost in ((_H100, 5 * rows * T**2), (chip_named("v5e"), 0)):
        found = [analytic_memory(c, chip, 8).by_kind["activations"] for c in (_CONFIG, documents)]
        assert found[1] - found[0] == cost


_SCORES = 64 * 12 * 1024**2  # 512 sequences over 8 devices, 12 heads


def scores_of(chip=_H100, axes=(2, 4, 1), **sections):
    """Bytes of activations beyond those of the fused kernels."""
    # Unset, the loss holds other logits on TPUs.
    config = dataclasses.replace(changed("compute", loss_chunk=128), mesh=MeshConfig(*axes))
    for section, values in sections.items():
        changes = dataclasses.replace(getattr(config, section), **values)
        config = dataclasses.replace(config, **{section: changes})
    fused = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dropout=0.0),
        compute=dataclasses.replace(config.compute, attention="auto", dtype="bfloat16"),
        data=_CONFIG.data,
    )
    kinds = [
        analytic_memory(each, one, 8).by_kind["activations"]
        for each, one in ((config, chip), (fused, _H100))
    ]
    return kinds[0] - kinds[1]


def test_dropout_costs_the_scores_of_the_reference_kernel():
    # In each of 12 layers: probabilities in float32 and bfloat16, and the mask; one is at work.
    assert scores_of() == 0
    assert scores_of(model={"dropout": 0.1}) == _SCORES * (12 * 7 + 11)
    for remat in ("dots", "full"):
        found = scores_of(model={"dropout": 0.1}, compute={"remat": remat})
        assert found == _SCORES * 11
    halved = scores_of(model={"dropout": 0.1}, axes=(2, 2, 2))
    assert halved == pytest.approx(_SCORES * (12 * 7 + 11), rel=1e-6)  # half, of twice the rows


def test_whatever_makes_the_reference_kernel_run_costs_the_same():
    whole = _SCORES * (12 * 6 + 11)
    assert scores_of(compute={"attention": "reference"}) == whole
    assert scores_of(compute={"dtype": "float32"}) == _SCORES * (12 * 8 + 11)  # no cuDNN
    assert scores_of(chip=chip_named("v100-32gb")) == whole  # too old for cuDNN
    v5e = chip_named("v5e")
    assert scores_of(chip=v5e) == 0
    assert scores_of(chip=v5e, compute={"attention": "reference"}) == whole
    # Only cuDNN needs a mask of documents in memory.
    documents = {"isolate_documents": True}
    assert scores_of(compute={"attention": "reference"}, data=documents) == whole


@pytest.mark.parametrize(
    ("remat", "dropout", "compiled"),
    [
        ("none", 0.0, 10.69),
        ("none", 0.1, 11.97),
        ("dots", 0.0, 3.20),
        ("dots", 0.1, 3.32),
        ("full", 0.0, 2.02),
        ("full", 0.1, 2.13),
    ],
)
def test_the_scores_are_about_what_the_compiler_for_h100_allocates(remat, dropout, compiled):
    """GiB of temporary arrays of 124M, 8 sequences: jax 0.10.2, compiled without a GPU."""
    config = Config(
        model=ModelConfig(vocab_size=50257, dropout=dropout),
        compute=ComputeConfig(remat=remat, attention="reference"),
        train=TrainConfig(batch_size=8),
    )
    found = analytic_memory(config, _H100, 1).by_kind["activations"] / 2**30
    assert 0.95 * compiled < found < 1.3 * compiled
