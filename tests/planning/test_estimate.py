from __future__ import annotations

import dataclasses

import pytest

from gpt2_jax.config import ComputeConfig, Config, MeshConfig, ModelConfig
from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.planning.aot import CompiledStep
from gpt2_jax.planning.estimate import estimate_from_program, estimate_from_shapes
from gpt2_jax.planning.memory import Memory
from gpt2_jax.planning.transfers import Transfer, minimum_transfers

_V5E, _H100 = chip_named("v5e"), chip_named("h100-sxm")
_MODEL = ModelConfig(vocab_size=50257)
_AXES = {"data": 4, "fsdp": 4, "tensor": 1}
_GATHER = Transfer("all-gather", "parameters", ("fsdp",), 4, 10, 4e9, False)
_STEP = CompiledStep(
    memory=Memory({}, 0, 0, fits=True),
    links={"data": 50e9, "fsdp": 100e9, "tensor": 0.0},
    transfers=(),
    cycles=int(2 * _V5E.clock_hz),
    kernels=(),
    rematerializations=0,
    compile_seconds=1.0,
)


def estimated(**found):
    return estimate_from_program(
        Config(model=_MODEL), _V5E, _AXES, dataclasses.replace(_STEP, **found)
    )


def test_cycles_take_their_time_and_up_to_a_quarter_more():
    assert estimated().compute_seconds == pytest.approx((2.0, 2.5))
    assert estimated().exposed_seconds == (0.0, 0.0)


def test_kernels_compute_causal_products_two_forward_and_five_backward():
    extra = [
        estimated(kernels=((name, 12),)).compute_seconds[0] - estimated().compute_seconds[0]
        for name in ("jit(step)/splash_fwd", "jit(step)/splash_dkv")
    ]
    # 512 sequences over 16 devices; half of 2 x 1024 x 1024 x 768 each.
    product = 12 * 32 * 1024**2 * 768 / (0.4 * _V5E.peak_bf16_flops)
    assert extra == pytest.approx([2 * product, 5 * product])


def test_a_transfer_takes_its_bytes_over_the_links_of_its_axes_and_a_latency():
    best, worst = estimated(transfers=(_GATHER,)).exposed_seconds
    assert best == pytest.approx(3e9 / 90e9 + 10 * 5e-6)
    assert worst == pytest.approx(3e9 / 50e9 + 10 * 20e-6)
    both = dataclasses.replace(_GATHER, axes=("data", "fsdp"), group=16)
    assert estimated(transfers=(both,)).exposed_seconds[0] == pytest.approx(
        3.75e9 / 135e9 + 10 * 5e-6
    )


def test_asynchronous_transfers_overlap_at_best_with_all_the_computation():
    asynchronous = dataclasses.replace(_GATHER, asynchronous=True)
    blocking, overlapped = estimated(transfers=(_GATHER,)), estimated(transfers=(asynchronous,))
    assert overlapped.exposed_seconds[0] == 0
    assert overlapped.exposed_seconds[1] == pytest.approx(blocking.exposed_seconds[1] / 2)
    for which in (blocking, overlapped):
        for case in (0, 1):
            total = which.compute_seconds[case] + which.exposed_seconds[case]
            assert which.step_seconds[case] == pytest.approx(total)
    # No more than there is to compute.
    long = dataclasses.replace(asynchronous, bytes=4e12)
    exposed = estimated(transfers=(long,)).exposed_seconds[0]
    assert exposed == pytest.approx(3e12 / 90e9 - 2.0, rel=1e-4)


def test_without_a_program_half_or_all_of_what_must_move_hides():
    config = Config(model=_MODEL)
    sent = sum(one.sent_bytes for one in minimum_transfers(config, _AXES))
    best, worst = estimate_from_shapes(config, _H100, _AXES).exposed_seconds
    assert best == 0
    assert worst == pytest.approx(sent / (_H100.link_bandwidth * 0.5) / 2)


def test_ranges_are_ordered_and_remat_and_more_devices_cost_what_they_should():
    def seconds(remat="none", devices=8):
        config = Config(model=_MODEL, compute=ComputeConfig(remat=remat), mesh=MeshConfig(devices))
        axis_sizes = {"data": devices, "fsdp": 1, "tensor": 1}
        return estimate_from_shapes(config, _H100, axis_sizes).step_seconds

    assert seconds()[0] < seconds()[1]
    assert seconds("full")[0] / seconds()[0] == pytest.approx(4 / 3, rel=0.01)
    assert 1.8 < seconds(devices=4)[0] / seconds()[0] <= 2.01
