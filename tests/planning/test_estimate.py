from __future__ import annotations

import dataclasses

import pytest

from gpt2_jax.config import ComputeConfig, Config, MeshConfig, ModelConfig
from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.planning.aot import CompiledStep
from gpt2_jax.planning.estimate import (
    estimate_from_program,
    estimate_from_shapes,
    kernel_peak,
)
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
    product = 12 * 32 * 1024**2 * 768 / (_V5E.peak_bf16_flops / 3)
    assert extra == pytest.approx([2 * product, 5 * product])


@pytest.mark.parametrize(
    ("head_dim", "block", "context_length", "unit", "best"),
    [
        (64, 512, 1024, 128, 1 / 2 * 2 / 3),  # GPT-2 on v5e
        (64, 512, 1024, 256, 1 / 4 * 2 / 3),  # on v6e
        (128, 512, 1024, 128, 2 / 3),
        (192, 512, 1024, 128, 3 / 4 * 2 / 3),  # two passes, the second half empty
        (64, 256, 1024, 128, 1 / 2 * 4 / 5),
        (64, 128, 128, 128, 1 / 2 * 1 / 2),  # one block, half of which counts
    ],
)
def test_the_kernels_range_follows_from_heads_and_blocks(
    head_dim, block, context_length, unit, best
):
    assert kernel_peak(head_dim, block, context_length, unit) == pytest.approx((best, best / 2))


def test_the_share_of_blocks_that_counts_is_that_of_the_scores_below_the_diagonal():
    # Counted one by one: a block is computed if any of its scores is seen.
    T, block = 1024, 256
    starts = range(0, T, block)
    computed = sum(block**2 for q in starts for k in starts if k <= q + block - 1)
    assert kernel_peak(128, block, T, 128)[0] == pytest.approx(T**2 / 2 / computed)


def test_only_a_step_with_kernels_says_what_they_reach():
    assert estimated().kernel_peak is None
    assert estimated(kernels=(("splash_fwd", 1),)).kernel_peak == pytest.approx((1 / 3, 1 / 6))
    assert estimate_from_shapes(Config(model=_MODEL), _V5E, _AXES).kernel_peak is None


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
