from __future__ import annotations

import dataclasses
import json

import pytest

from gpt2_jax.config import Config, MeshConfig, ModelConfig, TrainConfig
from gpt2_jax.errors import UserError
from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.planning import report
from gpt2_jax.planning.plan import analytic_plan
from gpt2_jax.planning.search import candidates, search

_H100 = chip_named("h100-sxm")
_SMALL = Config(model=ModelConfig(vocab_size=50257), mesh=MeshConfig(8, 1, 1))
_XL = ModelConfig(48, 25, 1600, vocab_size=50257)


def test_the_state_takes_twelve_bytes_a_parameter_and_fsdp_divides_it():
    whole = analytic_plan(_SMALL, _H100, 8, "8 x h100")
    cut = analytic_plan(dataclasses.replace(_SMALL, mesh=MeshConfig(1, 8, 1)), _H100, 8, "8 x h100")
    padded = whole.parameters + 47 * 768  # rows that fill the vocabulary up to 50304
    assert whole.memory.by_kind["parameters"] == 4 * padded
    assert whole.memory.by_kind["optimizer"] == pytest.approx(8 * padded, rel=1e-6)
    for kind in ("parameters", "optimizer"):
        # Biases and norms stay whole.
        assert 1 / 8 <= cut.memory.by_kind[kind] / whole.memory.by_kind[kind] < 1.01 / 8
    assert whole.memory.fits and whole.method.startswith("analytic")


def test_mfu_days_and_chip_hours_belong_together():
    plan = analytic_plan(_SMALL, _H100, 8, "8 x h100-sxm")
    for i in (0, 1):
        flops = plan.mfu[i] * 8 * _H100.peak_bf16_flops
        assert flops == pytest.approx(plan.flops_per_step / plan.step_seconds[i])
        assert plan.tokens_per_second[i] * plan.step_seconds[i] == pytest.approx(524_288)
        assert plan.chip_hours[i] == pytest.approx(24 * 8 * plan.days[i])
        seconds = plan.config.train.total_steps * plan.step_seconds[i]
        assert plan.days[i] * 86400 == pytest.approx(seconds)


def test_text_and_json_say_the_same():
    plan = analytic_plan(_SMALL, _H100, 8, "8 x h100-sxm")
    values = json.loads(json.dumps(report.as_json(plan, 2.5)))
    assert values["dollars"] == [2.5 * hours for hours in plan.chip_hours]
    for name in ("step_seconds", "tokens_per_second", "mfu", "days", "chip_hours", "dollars"):
        low, high = values[name]
        assert 0 < low < high, name
    assert values["memory_bytes"] == plan.memory.by_kind and values["fits"] is True
    text = report.as_text(plan, 2.5)
    assert "fits" in text and "124,439,808 parameters" in text and "$" in text
    assert "MFU 32 to 57 %" in text
    assert "dollars" not in report.as_json(plan)
    large = dataclasses.replace(_SMALL, train=TrainConfig(batch_size=8192))
    crowded = analytic_plan(large, _H100, 8, "8 x h100-sxm")
    assert not crowded.memory.fits
    assert "DOES NOT FIT" in report.as_text(crowded)
    assert "raise train.accumulation_steps" in report.as_text(crowded)


def test_a_mesh_that_does_not_divide_is_refused_with_ones_that_do():
    xl = Config(model=_XL, mesh=MeshConfig(1, 256, 1))
    with pytest.raises(UserError, match=r"mesh\.fsdp=256 .* 1600; meshes .*: 4x64x1") as e:
        analytic_plan(xl, _H100, 256, "x")
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="vocab_multiple=640"):
        analytic_plan(dataclasses.replace(xl, mesh=MeshConfig(1, 1, 5)), _H100, 5, "x")


def test_candidates_keep_the_batch_divide_the_model_and_come_fastest_first():
    config = Config(model=_XL, train=TrainConfig(batch_size=64), mesh=MeshConfig())
    found = candidates(config, chip_named("v5e"), 64)
    assert found and {plan.config.train.batch_size for plan in found} == {64}
    assert all(plan.axis_sizes["tensor"] == 1 for plan in found)  # 25 heads
    seconds = [sum(plan.step_seconds) for plan in found]
    assert seconds == sorted(seconds)
    assert all(plan.memory.needed <= plan.memory.available for plan in found)


def test_search_stops_at_the_count_and_leaves_out_what_does_not_fit():
    config = dataclasses.replace(_SMALL, train=TrainConfig(batch_size=64))
    found = candidates(config, _H100, 8)
    tried, lines = [], []

    def compile_plan(choice):
        guess = analytic_plan(choice, _H100, 8, "")
        memory = dataclasses.replace(guess.memory, fits=len(tried) != 0)
        plan = dataclasses.replace(guess, memory=memory, compile_seconds=1.0)
        tried.append(plan)
        return plan

    plans = search(found, compile_plan, count=2, seconds=100, log=lines.append)
    assert len(plans) == 2 and len(tried) == 3 and tried[0] not in plans
    assert sum(plans[0].step_seconds) <= sum(plans[1].step_seconds)
    assert "does not fit" in lines[1] and "fits" in lines[3]
    assert search(found, compile_plan, count=2, seconds=0) == []
    table = report.as_table(plans).splitlines()
    assert len(table) == 3 and "MFU" in table[0]
