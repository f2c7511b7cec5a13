from __future__ import annotations

import dataclasses

import pytest

from gpt2_jax.config import ComputeConfig, Config, ModelConfig, TrainConfig
from gpt2_jax.planning.transfers import KINDS, Transfer, merge_transfers, minimum_transfers

_CONFIG = Config(model=ModelConfig(vocab_size=50257))
_GATHER = Transfer("all-gather", "parameters", ("fsdp",), 4, 3, 1200, False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_ring_sends_all_but_its_own_part_and_that_twice_to_reduce_all(kind):
    sent = {"all-reduce": 1800, "collective-permute": 1200}.get(kind, 900)
    assert dataclasses.replace(_GATHER, kind=kind).sent_bytes == sent


def test_alike_transfers_are_summed_and_others_are_not():
    unlike = [
        dataclasses.replace(_GATHER, **{name: value})
        for name, value in [
            ("kind", "all-reduce"),
            ("of", "gradients"),
            ("axes", ("data",)),
            ("asynchronous", True),
        ]
    ]
    more = dataclasses.replace(_GATHER, count=1, bytes=5000)
    assert merge_transfers([_GATHER, *unlike, more]) == [
        dataclasses.replace(_GATHER, count=4, bytes=6200),
        *unlike,
    ]
    assert merge_transfers([]) == []


def sent_on_paper(config, data=1, fsdp=1, tensor=1):
    axis_sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    return {(one.of, *one.axes): one.sent_bytes for one in minimum_transfers(config, axis_sizes)}


def test_paper_traffic_follows_the_layout():
    config = _CONFIG
    n = 2 * (124_439_808 + 47 * 768)
    assert sent_on_paper(config) == {}
    assert sent_on_paper(config, fsdp=16) == {
        ("parameters", "fsdp"): pytest.approx(2 * n * 15 / 16),
        ("gradients", "fsdp"): pytest.approx(n * 15 / 16),
    }
    assert sent_on_paper(config, data=4) == {("gradients", "data"): pytest.approx(2 * n * 3 / 4)}
    assert sent_on_paper(config, tensor=2) == {
        ("activations", "tensor"): 4 * 12 * config.tokens_per_step * 768 * 2 * 2 / 2
    }
    # Replicas of what FSDP and tensor parallelism have cut.
    both = sent_on_paper(config, data=4, fsdp=2, tensor=2)
    assert both["gradients", "data"] == pytest.approx(2 * n / 4 * 3 / 4)


def test_microbatches_move_the_weights_again_and_float32_moves_twice_as_much():
    microbatches = dataclasses.replace(_CONFIG, train=TrainConfig(accumulation_steps=4))
    float32 = dataclasses.replace(_CONFIG, compute=ComputeConfig(dtype="float32"))
    whole = sent_on_paper(_CONFIG, fsdp=8, tensor=2)
    cut = sent_on_paper(microbatches, fsdp=8, tensor=2)
    wide = sent_on_paper(float32, fsdp=8, tensor=2)
    for of_axis, sent in whole.items():
        again = 1 if of_axis[0] == "activations" else 4
        assert cut[of_axis] == pytest.approx(again * sent)
        assert wide[of_axis] == pytest.approx(2 * sent)
