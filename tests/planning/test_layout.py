"""The layout that a run takes if its config sets no axis of the mesh."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path

import pytest

from gpt2_jax.config import Config, MeshConfig, ModelConfig, TrainConfig, from_dict
from gpt2_jax.errors import UserError
from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.planning.layout import choose_layout, run_layout
from gpt2_jax.planning.plan import analytic_plan

# The shipped configs, as tests/test_configs.py checks, with the sizes of their vocabularies.
_SHIPPED = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parents[1] / "golden").glob("*.json"))
}
_V5E, _V5P, _H100 = map(chip_named, ("v5e", "v5p", "h100-sxm"))
_SMALL = ModelConfig(vocab_size=50257)
_XL = ModelConfig(48, 25, 1600, vocab_size=50257)


def config(model, batch_size=512, steps=1):
    train = TrainConfig(batch_size=batch_size, accumulation_steps=steps)
    return Config(model=model, train=train)


def axes(layout):
    return dataclasses.astuple(layout.mesh)


def advised(config, message):
    """The config with what a refusal says to set."""
    assert "\n" not in message and message.startswith("mesh is unset, and no layout of ")
    text = message.partition(" set ")[2].partition(", or ")[0]
    knobs = re.fullmatch(r"train\.(\w+)=(\d+)(?: and compute\.remat=(\w+))?", text)
    assert knobs, message
    train = dataclasses.replace(config.train, **{knobs[1]: int(knobs[2])})
    compute = dataclasses.replace(config.compute, remat=knobs[3] or config.compute.remat)
    return dataclasses.replace(config, train=train, compute=compute)


@pytest.mark.parametrize("chip", ["v5e", "v5p", "v6e", "h100-sxm"])
@pytest.mark.parametrize("name", _SHIPPED)
def test_every_shipped_config_has_a_layout_that_fits_or_is_told_what_to_set(name, chip):
    for devices in (8, 16, 64, 256):
        shipped = from_dict(_SHIPPED[name])
        for _ in range(3):  # a batch that divides, then microbatches that fit
            layout, problem = None, None
            try:
                layout = choose_layout(shipped, chip_named(chip), devices)
                problem = layout.problem
            except UserError as error:
                problem = str(error)
            if problem is None:
                break
            shipped = advised(shipped, problem)
        assert layout is not None and layout.problem is None, problem
        placed = dataclasses.replace(shipped, mesh=layout.mesh)
        plan = analytic_plan(placed, chip_named(chip), devices, "")  # it divides
        assert plan.memory.fits and plan.devices == devices
        assert layout.text.startswith(plan.layout + " (chosen, as mesh is unset: about ")
    one = choose_layout(from_dict(_SHIPPED[name]), chip_named(chip), 1)
    assert axes(one) == (1, 1, 1) and one.problem is None


def test_xl_as_shipped_trains_on_256_chips_and_most_need_no_advice():
    xl = from_dict(_SHIPPED["gpt2_xl"])
    assert axes(choose_layout(xl, _V5E, 256)) == (4, 64, 1)
    assert axes(choose_layout(xl, _V5E, 64)) == (1, 64, 1)
    assert axes(choose_layout(xl, _V5P, 256)) == (256, 1, 1)
    assert axes(choose_layout(xl, _H100, 256)) == (256, 1, 1)


def test_data_alone_while_it_fits_with_room():
    assert axes(choose_layout(config(_SMALL), _V5E, 64)) == (64, 1, 1)
    needed = analytic_plan(
        dataclasses.replace(config(_SMALL), mesh=MeshConfig(64, 1, 1)), _V5E, 64, ""
    ).memory.needed
    for spare, expected in ((0.16, (64, 1, 1)), (0.14, (2, 32, 1))):
        chip = dataclasses.replace(_V5E, usable_hbm_bytes=int(needed / (1 - spare)))
        assert axes(choose_layout(config(_SMALL), chip, 64)) == expected


def test_gpus_shard_over_as_few_devices_as_will_do():
    small = config(_XL, batch_size=16)
    needed = {
        fsdp: analytic_plan(
            dataclasses.replace(small, mesh=MeshConfig(16 // fsdp, fsdp, 1)), _H100, 16, ""
        ).memory.needed
        for fsdp in (2, 4)
    }
    # JAX takes three quarters of a GPU's memory, and 15 % of that are to be left.
    between = dataclasses.replace(_H100, hbm_bytes=int((needed[4] + 1) / 0.85 / 0.75) + 1)
    assert axes(choose_layout(small, between, 16)) == (4, 4, 1)
    more = dataclasses.replace(_H100, hbm_bytes=int((needed[2] + 1) / 0.85 / 0.75) + 1)
    assert axes(choose_layout(small, more, 16)) == (8, 2, 1)


def test_tensor_comes_last_and_only_data_spans_slices():
    heads = dataclasses.replace(_XL, num_heads=16)
    # Eight sequences do not divide over 16 devices in any other way.
    assert axes(choose_layout(config(heads, batch_size=8), _V5P, 16))[2] == 2
    assert axes(choose_layout(config(_XL, batch_size=32), _V5E, 32, num_slices=2)) == (4, 8, 1)
    assert axes(choose_layout(config(_XL, batch_size=128), _V5E, 128, num_slices=2)) == (4, 32, 1)


def test_without_room_it_takes_what_needs_the_least():
    tight = dataclasses.replace(_V5E, usable_hbm_bytes=16 * 2**30)
    crowded = choose_layout(config(_SMALL, batch_size=128), tight, 16)
    assert crowded.problem is None
    full = dataclasses.replace(_V5E, usable_hbm_bytes=int(2**30 * 4.0))
    layout = choose_layout(config(_SMALL, batch_size=128), full, 16)
    assert layout.problem is None and axes(layout)[2] == 1 and axes(layout)[1] >= 8


def test_refusals_say_why_and_what_to_set():
    large = choose_layout(config(_SMALL), _V5E, 8)
    assert large.problem is not None
    assert re.match(
        r"mesh is unset, and no layout of 8 devices is expected to fit their memory: data 1 x fsdp "
        r"8 x tensor 1 needs about 19\.\d of 15\.8 GiB a device; set train\.accumulation_steps=2, "
        r"or name a mesh to try it all the same: --config\.mesh\.data=1 --config\.mesh\.fsdp=8 "
        r"--config\.mesh\.tensor=1$",
        large.problem,
    )
    with pytest.raises(UserError, match=r"microbatches of 128 sequences .*set train\.acc\w+=2$"):
        choose_layout(config(_XL, steps=4), _V5P, 256)
    with pytest.raises(UserError, match=r"of 12 sequences .*set train\.batch_size=16, or use few"):
        choose_layout(config(_XL, batch_size=12), _V5P, 16)
    deep = dataclasses.replace(_XL, num_layers=480)
    assert "use more devices" in str(choose_layout(config(deep), _V5E, 8).problem)


@dataclasses.dataclass(frozen=True)
class Device:
    device_kind: str
    platform: str = "tpu"
    slice_index: int = 0


def test_a_run_chooses_only_on_several_accelerators_whose_memory_is_known():
    model = config(_SMALL, batch_size=64)
    v5e, unknown = Device("TPU v5 lite"), Device("TPU v99")
    assert run_layout(model, [Device("cpu", "cpu")] * 8) is None
    assert run_layout(model, [v5e]) is None

    def text(*devices, **mesh):
        layout = run_layout(dataclasses.replace(model, mesh=MeshConfig(**mesh)), devices)
        return layout and layout.text

    assert text(*[v5e] * 8).startswith("data 8 x fsdp 1 x tensor 1 (chosen, as mesh is unset")
    assert text(*[v5e] * 8, fsdp=4) == "data 2 x fsdp 4 x tensor 1 (as configured)"
    assert text(*[unknown] * 8) == (
        "data 8 x fsdp 1 x tensor 1 (mesh is unset, and the devices' memory is unknown)"
    )
    with pytest.raises(UserError, match="is expected to fit their memory"):
        run_layout(config(_SMALL), [v5e] * 8)


def test_all_processes_choose_the_same():
    """Whatever the order of the devices, and if some have less memory than others."""
    gpus = [Device(f"NVIDIA A100-SXM4-{size}GB", "gpu") for size in (40, 80) for _ in range(4)]
    layouts = set()
    for seed in range(4):
        random.Random(seed).shuffle(gpus)
        layouts.add(run_layout(config(_SMALL, batch_size=128), gpus))
    (layout,) = layouts
    assert layout is not None and "of 30.0 GiB" in layout.text
