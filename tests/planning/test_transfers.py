from __future__ import annotations

import dataclasses

import pytest

from gpt2_jax.planning.transfers import KINDS, Transfer, summed

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
    assert summed([_GATHER, *unlike, more]) == [
        dataclasses.replace(_GATHER, count=4, bytes=6200),
        *unlike,
    ]
    assert summed([]) == []
