"""Tests the names of runs, and what makes room for what."""

from __future__ import annotations

from typing import NamedTuple

from gpt2_jax.serve.runs import RUN_ID, Kept, run_id


class _Value(NamedTuple):
    num_bytes: int


def test_a_run_is_named_by_all_that_its_numbers_depend_on() -> None:
    base = ("f", 3, [1, 2], {"heads": [[0, 1, 0.5]]})
    name = run_id(*base)
    assert RUN_ID.fullmatch(name)
    assert name == run_id("f", 3, (1, 2), {"heads": [[0, 1, 0.5]]})
    others = [
        ("g", *base[1:]),
        ("f", 4, *base[2:]),
        ("f", 3, [1, 2, 3], base[3]),
        ("f", 3, [12], base[3]),
        (*base[:3], {"heads": [[0, 1, 0.25]]}),
        (*base[:3], None),
    ]
    assert len({name, *(run_id(*other) for other in others)}) == 7
    assert run_id(*base[:3], {}) == run_id(*base[:3], None)


def test_the_least_recently_used_make_room() -> None:
    kept = Kept[_Value](100)
    values = {name: _Value(40) for name in "abc"}
    assert kept.put("a", values["a"]) == kept.put("b", values["b"]) == []
    assert kept.get("a") is values["a"]
    assert kept.put("c", values["c"]) == [values["b"]]
    assert (kept.names, kept.num_bytes) == (["a", "c"], 80)
    assert kept.get("b") is None
    # A value that is larger than all the room is there nevertheless, alone.
    kept.put("d", _Value(1000))
    assert kept.names == ["d"]
    kept.put("e", _Value(1))
    assert kept.names == ["e"]
    kept.drop(lambda value: value.num_bytes == 1)
    assert kept.names == []


def test_the_last_values_stay_whatever_their_size() -> None:
    kept = Kept[_Value](100, at_least=2)
    for name in "abc":
        kept.put(name, _Value(1000))
    assert kept.names == ["b", "c"]


def test_a_value_that_is_put_again_counts_once() -> None:
    kept = Kept[_Value](100)
    for _ in range(5):
        kept.put("a", _Value(60))
    assert (kept.names, kept.num_bytes) == (["a"], 60)
