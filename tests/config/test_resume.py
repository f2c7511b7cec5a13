"""Tests which knobs may change when a run resumes, and which are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from gpt2_jax.config import Config, check_resume, from_dict, to_dict
from gpt2_jax.errors import UserError
from tests.config.lines import KNOBS, get_knob, line_of


def _changed(config: Config, key: str) -> Config:
    """Returns the config with another valid value of one knob."""
    knob, value = KNOBS[key], get_knob(config, key)
    candidates: list[Any] = list(knob.choices or ())
    if knob.type is bool:
        candidates = [not value]
    elif knob.type is int:
        candidates += [value * 2, value + 1, value - 1, 1] if value is not None else [64, 1]
    elif knob.type is float:
        candidates += [value / 2, 0.5] if value is not None else [0.5]
    elif not knob.choices:
        candidates = ["other", "other=1", "8", "eval/perplexity", "prompt:question,answer:reply"]
    for other in candidates:
        if other != value:
            section, name = key.split(".")
            values = to_dict(config)
            values[section][name] = other
            try:
                return from_dict(values)
            except UserError:
                continue
    raise AssertionError(f"no other value for {key} is valid")


def _may_change(key: str) -> bool:
    """Returns whether the knob may change on resume."""
    section = key.partition(".")[0]
    allowed = ("mesh", "log", "eval", "checkpoint", "compute")
    return (section in allowed and key != "compute.prng") or key in (
        "train.accumulation_steps",
        "train.total_steps",
        "train.init_from",
        "train.init_resize",
        "train.init_model",
        "train.max_bad_steps",
        "train.patience",
        "train.hang_timeout",
        "schedule.allow_rewind",
    )


@pytest.mark.parametrize(
    "key",
    [key for key, knob in KNOBS.items() if not (knob.choices and len(knob.choices) == 1)],
)
def test_only_what_the_run_computes_is_fixed_on_resume(key: str) -> None:
    model = {"num_layers": 4, "mup_base_width": 256}  # some knobs need a base width
    best = {"best": "eval/loss"}  # others need to know which step is the best
    train = {"batch_size": 64}
    if key == "model.lora_rank":  # which needs a model to start from, and excludes muP
        model, train = {"num_layers": 4}, {"batch_size": 64, "init_from": "base"}
    saved = from_dict({"model": model, "train": train, "checkpoint": best})
    new = _changed(saved, key)
    if _may_change(key):
        check_resume(saved, new, "w")
        return
    with pytest.raises(UserError) as error:
        check_resume(saved, new, "w")
    assert key in line_of(error)
    assert f"{get_knob(saved, key)!r} -> {get_knob(new, key)!r}" in str(error.value)
    assert "w holds a run with another config" in str(error.value)


def test_every_changed_field_is_named_at_once() -> None:
    saved = Config()
    new = from_dict({"model": {"num_layers": 6}, "train": {"seed": 1, "batch_size": 256}})
    with pytest.raises(UserError) as error:
        check_resume(saved, new, "w")
    for change in ("num_layers (12 -> 6)", "train.seed (0 -> 1)", "train.batch_size (512 -> 256)"):
        assert change in str(error.value)


@pytest.mark.parametrize(
    ("key", "saved", "new", "same"),
    [
        ("mixture", "a=1,b=1", "a=0.5, b=0.5", True),
        ("mixture", "x/a=0.75,b=0.25", "/moved/a=3,gs://bucket/b=1", True),
        ("mixture", "a=1,b=1", "a=1,b=2", False),
        ("mixture", "a=1,b=2", "b=2,a=1", False),  # other windows in another order
        ("mixture", "a=1,b=1", "a=1", False),
        ("path", "runs/data/a", "/moved/b", True),
        ("path", "runs/data/a", None, False),
    ],
)
def test_folders_of_data_may_have_other_names_on_resume_but_not_other_weights(
    key: str, saved: str, new: str | None, same: bool
) -> None:
    before, after = (from_dict({"data": {key: value}}) for value in (saved, new))
    if same:
        check_resume(before, after, "w")
        return
    with pytest.raises(UserError) as error:
        check_resume(before, after, "w")
    assert f"data.{key} ({saved!r} -> {new!r})" in str(error.value)


def test_a_seed_may_be_spelled_out_on_resume() -> None:
    saved = from_dict({"train": {"seed": 3}})
    check_resume(saved, from_dict({"train": {"seed": 3, "init_seed": 3}}), "w")
    with pytest.raises(UserError, match=r"config: train\.data_seed \(None -> 4\) must not"):
        check_resume(saved, from_dict({"train": {"seed": 3, "data_seed": 4}}), "w")
    with pytest.raises(UserError, match=r"config: train\.seed \(3 -> 4\) must not"):
        check_resume(saved, from_dict({"train": {"seed": 4}}), "w")


def test_total_steps_may_grow_but_not_shrink() -> None:
    saved = from_dict({"train": {"total_steps": 10_000}})
    check_resume(saved, saved, "w")
    check_resume(saved, from_dict({"train": {"total_steps": 10_001}}), "w")
    with pytest.raises(
        UserError, match=r"train\.total_steps .* least 10000, .* not 9999; .*stop_at_step"
    ):
        check_resume(saved, from_dict({"train": {"total_steps": 9_999}}), "w")
