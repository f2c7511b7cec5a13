"""Tests that the algebra of sweep files keeps the laws that its words promise."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.config import knobs
from gpt2_jax.config.knob import parse
from gpt2_jax.errors import UserError
from gpt2_jax.sweeps import arms, axis, chain, logspace2, product, seeds, zipped
from gpt2_jax.sweeps.axes import Points, value_text

_CASES = settings(max_examples=60, derandomize=True, deadline=None)
_VALUES = st.integers(-5, 5) | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=3)


def _axes(key: str) -> st.SearchStrategy[Points]:
    return st.lists(_VALUES, min_size=1, max_size=4).map(lambda values: axis(key, values))


def _overrides(points: Points) -> list[dict[str, Any]]:
    return [dict(setting.overrides) for setting in points]


@_CASES
@given(a=_axes("a.a"), b=_axes("b.b"), c=_axes("c.c"))
def test_a_product_has_every_combination_once_and_the_last_part_varies_fastest(a, b, c):
    points = product(a, b, c)
    assert _overrides(points) == [
        {**x.overrides, **y.overrides, **z.overrides} for x, y, z in itertools.product(a, b, c)
    ]
    assert [p.labels for p in points] == [
        (*x.labels, *y.labels, *z.labels) for x, y, z in itertools.product(a, b, c)
    ]
    assert product(product(a, b), c) == points == product(a, product(b, c))
    assert product(a) == a == chain(a) == zipped(a)


@_CASES
@given(a=_axes("a.a"), b=_axes("a.a"), c=_axes("b.b"))
def test_a_chain_is_one_part_after_the_other_and_a_product_distributes_over_it(a, b, c):
    assert list(chain(a, b)) == [*a, *b]
    assert product(chain(a, b), c) == chain(product(a, c), product(b, c))


@_CASES
@given(a=_axes("a.a"), b=_axes("b.b"))
def test_zipped_pairs_what_is_equally_long_and_refuses_the_rest(a, b):
    if len(a) == len(b):
        expected = [{**x.overrides, **y.overrides} for x, y in zip(a, b, strict=True)]
        assert _overrides(zipped(a, b)) == expected
    else:
        with pytest.raises(UserError, match=f"same length, not {len(a)}, {len(b)}"):
            zipped(a, b)


@_CASES
@given(a=_axes("a.a"), b=_axes("b.b"))
def test_where_keeps_what_it_is_true_of_in_the_same_order(a, b):
    def where(overrides):
        return str(overrides["a.a"]) <= str(overrides["b.b"])

    kept = [each for each in product(a, b) if where(each.overrides)]
    if kept:
        assert list(product(a, b, where=where)) == kept
    else:
        with pytest.raises(UserError, match="where= is true of no setting"):
            product(a, b, where=where)


@_CASES
@given(count=st.integers(1, 9), first=st.integers(0, 99), a=_axes("a.a"))
def test_seeds_are_consecutive_and_no_part_of_the_arm(count, first, a):
    points = product(a, seeds(count, first=first))
    assert [p.overrides["train.seed"] for p in points] == [*range(first, first + count)] * len(a)
    assert [p.arm for p in points] == [each.arm for each in a for _ in range(count)]
    assert all("train.seed" not in p.without_seed for p in points)


@_CASES
@given(
    value=st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans(),
    scalar=st.sampled_from([np.float64(0.1), np.float32(0.5), np.int64(3), np.bool_(True)]),
)
def test_a_value_reaches_the_command_line_and_comes_back_as_it_was(value, scalar):
    kinds = {"float": "schedule.learning_rate", "int": "train.seed", "bool": "log.tensorboard"}
    by_key = {knob.key: knob for knob in knobs()}
    for each in (value, scalar):
        (setting,) = axis(kinds[type(np.asarray(each).item()).__name__], [each])
        ((key, kept),) = setting.overrides.items()
        assert type(kept) in (float, int, bool)
        assert parse(by_key[key], value_text(kept)) == each
    assert parse(by_key["train.init_from"], value_text(None)) is None


def test_arms_are_called_by_their_names_and_the_base_config_by_its_own():
    both = arms({"adamw": {}, "lion": {"optimizer.name": "lion", "optimizer.beta2": 0.99}})
    points = product(both, axis("model.num_layers", [2, 4]), seeds(2))
    assert [p.arm for p in points[::2]] == [
        *("adamw model.num_layers=2", "adamw model.num_layers=4"),
        *("lion model.num_layers=2", "lion model.num_layers=4"),
    ]
    assert seeds(1)[0].arm == "base"


def test_logspace2_has_both_ends():
    assert logspace2(-3, 1) == [0.125, 0.25, 0.5, 1.0, 2.0]
    assert logspace2(-3, -3) == [0.125]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: product(axis("a.a", [1]), axis("a.a", [2])), "product: a.a is set by two parts"),
        (lambda: zipped(seeds(1), seeds(1)), "zipped: train.seed is set by two parts"),
        (lambda: product(axis("a.a", [1]), {"b.b": 2}), "product: give it axis"),
        (lambda: chain(), "has no parts"),
        (lambda: axis("a.a", []), "has no values"),
        (lambda: axis("a.a", "word"), "values must be a list, not 'word'"),
        (lambda: axis("a.a", [[1]]), "a.a must be a string, a number"),
        (lambda: axis("layers", [1]), "a knob is named section.name, not 'layers'"),
        (lambda: arms({}), "has no arms"),
        (lambda: arms({"a  b": {}}), "words with single spaces"),
        (lambda: arms(["adamw"]), "arms must be a mapping"),
        (lambda: seeds(0), "must be at least 1"),
        (lambda: seeds(1, first=2**32), "first must be at most"),
        (lambda: logspace2(-6, -12), "logspace2: high must be at least -6"),
        (lambda: axis("a.a", [1], where=lambda o: o["b.b"]), "where= fails for a.a=1: KeyError"),
    ],
)
def test_a_mistake_is_named(make, problem):
    with pytest.raises(UserError, match=problem):
        make()
