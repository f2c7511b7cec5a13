"""Tests that each wrong value is one short line with the knob, the value and the range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.config import from_dict, load_config
from gpt2_jax.errors import UserError
from tests.config.lines import KNOBS, line_of, mistake


def test_unknown_names_get_a_hint() -> None:
    assert "did you mean 'model'?" in mistake(modle={})
    assert "did you mean 'model.num_layers'?" in mistake(model={"num_layer": 3})
    assert "did you mean 'schedule.learning_rate'?" in mistake(schedule={"learning_rat": 1.0})
    assert "'mesh'" in mistake(mesh=3)  # type: ignore[arg-type]


def test_a_name_like_no_other_gets_the_knobs_of_its_section() -> None:
    message = mistake(checkpoint={"xyzzy": 3})
    assert "did you mean" not in message
    assert "every, every_minutes, keep" in message


def test_a_knob_of_another_section_is_hinted_at() -> None:
    assert "did you mean 'train.batch_size'?" in mistake(data={"batch_size": 3})
    assert "did you mean 'schedule.learning_rate'?" in mistake(optimizer={"learning_rate": 1.0})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_layer=3", "did you mean 'model.num_layers'?"),
        ("modle.num_layers=3", "did you mean 'model.num_layers'?"),
        ("num_layers=3", "SECTION.KEY"),
        ("model=3", "SECTION.KEY"),
        ("train.seed", "--config.train.seed=VALUE"),
        ("model.num_layers=two", "model.num_layers must be an integer, not 'two'"),
        ("model.num_layers=2.5", "model.num_layers must be an integer, not '2.5'"),
        ("model.num_layers=none", "model.num_layers must be an integer, not 'none'"),
        ("model.num_layers=", "model.num_layers must be an integer"),
        ("schedule.learning_rate=fast", "schedule.learning_rate must be a number, not 'fast'"),
        ("schedule.learning_rate=nan", "schedule.learning_rate must be finite"),
        ("optimizer.grad_clip=inf", "optimizer.grad_clip must be finite"),
        ("log.tensorboard=maybe", "log.tensorboard must be true or false, not 'maybe'"),
        ("compute.dtype=bfloat61", "did you mean 'bfloat16'?"),
        ("data.tokenizer=bytes", "did you mean 'byte'?"),
        ("compute.precision=hihg", "did you mean 'high'?"),
        ("compute.attention=cdunn", "did you mean 'cudnn'?"),
        ("compute.precision=float32", "not 'float32'; write highest, which computes float32"),
        ("compute.attention=gpu", "not 'gpu'; write cudnn, the kernel for GPUs"),
        ("compute.attention=tpu", "not 'tpu'; write splash, the kernel for TPUs"),
        ("compute.dtype=FP16", "not 'FP16'; write bfloat16, which has the range of float32, so"),
    ],
)
def test_a_wrong_override_names_the_knob_and_the_remedy(
    plain: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        load_config(plain, [override])
    assert message in line_of(error, plain)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.num_layers", 2.0),
        ("model.num_layers", "2"),
        ("model.num_layers", True),
        ("model.num_layers", None),
        ("model.dropout", "0.1"),
        ("model.dropout", True),
        ("compute.dtype", 32),
        ("log.tensorboard", 1),
        ("log.tensorboard", "true"),
        ("data.path", 3),
        ("train.seed", [1]),
    ],
)
def test_a_wrong_type_names_knob_kind_and_value(key: str, value: Any) -> None:
    section, name = key.split(".")
    message = mistake(**{section: {name: value}})
    kind = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    assert message == f"{key} must be {kind[KNOBS[key].type]}, not {value!r}"


@pytest.mark.parametrize("key", [key for key, knob in KNOBS.items() if knob.low is not None])
def test_values_below_the_lowest_are_refused(key: str) -> None:
    knob = KNOBS[key]
    assert knob.low is not None
    section, name = key.split(".")
    for value in (knob.type(knob.low - 1), knob.type(-1000)):
        message = mistake(**{section: {name: value}})
        assert message == f"{key} must be at least {knob.low:g}, not {value!r}"


_HAVE_HIGHEST = [
    key for key, knob in KNOBS.items() if knob.type in (int, float) and knob.below is None
]


@pytest.mark.parametrize("key", _HAVE_HIGHEST)
def test_values_above_the_highest_are_refused(key: str) -> None:
    knob = KNOBS[key]
    section, name = key.split(".")
    value = knob.type(knob.high + 1)
    assert mistake(**{section: {name: value}}) == f"{key} must be at most {knob.high}, not {value}"
    # What has no float, or not even digits that Python would show.
    for power in (400, 5000):
        assert f"{key} must be at most" in mistake(**{section: {name: 10**power}})


@pytest.mark.parametrize("key", [key for key, knob in KNOBS.items() if knob.below is not None])
def test_values_at_the_open_end_are_refused(key: str) -> None:
    knob = KNOBS[key]
    assert knob.below is not None
    section, name = key.split(".")
    value = knob.type(knob.below)
    assert mistake(**{section: {name: value}}) == f"{key} must be below {knob.below:g}, not {value}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_must_be_finite(value: float) -> None:
    for key, knob in KNOBS.items():
        if knob.type is float:
            section, name = key.split(".")
            assert f"{key} must be" in mistake(**{section: {name: value}})


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"model": {"d_model": 30, "num_heads": 4}}, ["model.d_model=30", "model.num_heads=4"]),
        (
            {"model": {"num_layers": 3}, "compute": {"scan_unroll": 2}},
            ["compute.scan_unroll=2", "model.num_layers=3"],
        ),
        (
            {"model": {"context_length": 64}, "compute": {"loss_chunk": 48}},
            ["compute.loss_chunk=48", "model.context_length=64"],
        ),
        (
            {"train": {"batch_size": 10, "accumulation_steps": 4}},
            ["train.batch_size=10", "train.accumulation_steps=4"],
        ),
        (
            {"schedule": {"learning_rate": 1e-5, "min_learning_rate": 1e-4}},
            ["schedule.min_learning_rate=0.0001", "schedule.learning_rate=1e-05"],
        ),
        (
            {"schedule": {"warmup_steps": 11}, "train": {"total_steps": 10}},
            ["schedule.warmup_steps=11", "train.total_steps=10"],
        ),
        ({"mesh": {"data": -1, "fsdp": -1}}, ["mesh", "-1"]),
        ({"mesh": {"tensor": 0}}, ["mesh", "0"]),
        (
            {"model": {"vocab_size": 2**31 - 1, "vocab_multiple": 128}},
            ["model.vocab_size=2147483647", "model.vocab_multiple=128"],
        ),
    ],
)
def test_knobs_that_contradict_each_other_are_both_named(
    sections: dict[str, dict[str, Any]], names: list[str]
) -> None:
    message = mistake(**sections)
    assert all(name in message for name in names), message


def test_a_loss_chunk_longer_than_the_context_is_the_whole_context() -> None:
    for chunk in (128, 0):
        config = from_dict({"model": {"context_length": 50}, "compute": {"loss_chunk": chunk}})
        assert config.compute.loss_chunk == chunk
