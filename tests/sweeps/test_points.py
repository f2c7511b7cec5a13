"""Tests that points resolve as their commands would, have stable names, and differ."""

from __future__ import annotations

import dataclasses
import json
import shlex

import pytest

from gpt2_jax.config import from_dict, knobs, load_config, to_dict
from gpt2_jax.errors import UserError
from gpt2_jax.sweeps import arms, axis, best_of, chain, logspace2, product, seeds
from gpt2_jax.sweeps.points import config_hash

_RATES = axis("schedule.learning_rate", logspace2(-10, -8))
_RULES = arms({"adamw": {}, "lion": {"optimizer.name": "lion"}})
_FIXED = {"schedule.min_learning_rate": 0.0}


def _tuned(house, **settings):
    tune = product(_RULES, _RATES, seeds(2, first=100))
    confirm = best_of("tune", per=_RULES, then=seeds(3), **settings)
    return house.stages(stages=[tune, confirm], overrides=_FIXED, baseline="adamw")


def test_the_command_of_a_point_resolves_to_its_config(house):
    points = product(
        axis("model.position", ["learned", "rotary"]),
        axis("schedule.learning_rate", [1 / 3, 2.0**-12, 1]),
        axis("data.isolate_documents", [True, False]),
        axis("train.data_seed", [None, 3]),
        seeds(2),
    )
    stages = house.stages(points, overrides=_FIXED)
    assert stages.count("main") == len(stages.known["main"]) == 48
    for point in stages.known["main"]:
        words = shlex.split(shlex.join(point.flags("tiny.py", "run")))
        assert words[:4] == ["--config", "tiny.py", "--workdir", "run"]
        overrides = [word.removeprefix("--config.") for word in words[4:]]
        assert load_config("tiny.py", overrides) == point.config
        assert point.tokens == 2 * 8 * 32
    assert len({point.name for point in stages.known["main"]}) == 48


def test_a_name_depends_on_what_is_learned_and_on_nothing_else(house):
    config = load_config("tiny.py")
    values = to_dict(config)
    for knob in knobs():
        section, name = knob.key.split(".")
        value = values[section][name]
        others = {bool: not value, int: 3, float: 0.125, str: "other"}
        changed = json.loads(json.dumps(values))
        changed[section][name] = others[knob.type]
        digest = config_hash(
            dataclasses.replace(
                config,
                **{section: dataclasses.replace(getattr(config, section), **changed[section])},
            )
        )
        same = section in ("log", "checkpoint", "mesh") or others[knob.type] == value
        assert (digest == config_hash(config)) == same, knob.key
    assert config_hash(from_dict(values)) == config_hash(config)


def test_a_name_stays_when_points_are_added_or_reordered_or_the_default_is_written(house):
    one = house.stages(product(axis("model.position", ["rotary"]), seeds(2)))
    more = house.stages(
        product(axis("model.position", ["learned", "rotary"]), seeds(9)), overrides={"log.every": 7}
    )
    names = [point.name for point in one.known["main"]]
    assert names == [p.name for p in more.known["main"] if p.arm == "model.position=rotary"][:2]
    assert names[1].startswith("position-rotary-s1-") and len(names[1]) == len(names[0]) == 27
    spelled = product(axis("model.position", ["rotary"]), seeds(2), axis("model.norm", ["layer"]))
    again = house.stages(spelled).known["main"]
    assert [point.name[-8:] for point in again] == [name[-8:] for name in names]
    (odd,) = house.stages(arms({"a/b c..": {}})).known["main"]
    assert odd.name.startswith("a-b-c-s0-") and odd.arm == "a/b c.."


def test_all_errors_of_all_points_are_in_one_message(house):
    points = chain(
        product(axis("model.positon", ["rotary"]), seeds(3)),
        axis("model.position", ["rotory"]),
        axis("model.num_heads", [3, 4, 5]),
    )
    with pytest.raises(UserError) as refusal:
        house.stages(points)
    message = str(refusal.value)
    assert message.count(";") >= 3 and "\n" not in message
    assert "unknown config key 'model.positon'; did you mean 'model.position'?" in message
    assert "model.position must be one of" in message and "did you mean 'rotary'?" in message
    assert "model.num_heads=3" in message and "model.num_heads=5" in message
    assert message.count("'model.positon'") == 1  # of the same error of several seeds, one


def test_a_duplicate_is_refused_even_if_it_is_written_in_another_way(house):
    points = chain(axis("model.norm", ["layer", "rms"]), axis("model.position", ["learned"]))
    with pytest.raises(UserError, match=r"duplicate points: 'model.position=learned' with"):
        house.stages(points)
    with pytest.raises(UserError, match=r"duplicate points"):
        house.stages(chain(seeds(2), seeds(3)))
    with pytest.raises(UserError, match=r"duplicate points"):
        house.stages(axis("log.every", [1, 2]))  # which changes nothing that is learned
    with pytest.raises(UserError, match=r"two different arms are called 'a'"):
        house.stages(chain(arms({"a": {}}), arms({"a": {"model.norm": "rms"}})))
    with pytest.raises(UserError, match=r"model.norm is set by a point and by overrides="):
        house.stages(axis("model.norm", ["rms"]), overrides={"model.norm": "layer"})


def test_a_baseline_is_one_arm(house):
    points = product(
        axis("model.position", ["learned", "none"]), axis("model.norm", ["layer", "rms"]), seeds(2)
    )
    one = {"model.position": "none", "model.norm": "rms"}
    arm = "model.position=none model.norm=rms"
    assert house.stages(points, baseline=one).baseline == arm
    assert house.stages(points, baseline=arm).baseline == arm
    assert house.stages(points).baseline is None
    with pytest.raises(UserError, match=r"model.position='none' is true of 2 arms"):
        house.stages(points, baseline={"model.position": "none"})
    with pytest.raises(UserError, match=r"baseline model.position='rotary' is no arm; the arms"):
        house.stages(points, baseline={"model.position": "rotary"})
    with pytest.raises(UserError, match=r"baseline lions is no arm; did you mean 'lion'"):
        house.stages(product(_RULES, seeds(2)), baseline="lions")


def test_a_metric_is_one_that_the_validations_report(house):
    for metric in ("eval/loss", "eval/bits_per_byte"):
        house.stages(seeds(2), metric=metric)
    with pytest.raises(UserError, match=r"metric 'eval/los' .* did you mean 'eval/loss'"):
        house.stages(seeds(2), metric="eval/los")
    with pytest.raises(UserError, match=r"metric 'loss' is not reported"):
        house.stages(seeds(2), metric="loss")


def test_the_best_setting_of_each_arm_is_confirmed_on_fresh_seeds(house):
    stages = _tuned(house)
    assert [stages.count(name) for name in ("tune", "confirm")] == [12, 6]
    # Of adamw the second rate is best, of lion the third; a lost point rules a rate out.
    means = {"adamw": [0.3, 0.1, 0.2], "lion": [0.1, 0.3, 0.2]}
    finished = []
    for index, point in enumerate(stages.known["tune"]):
        value = means[point.arm.split()[0]][index // 2 % 3] + (index % 2) / 1000
        finished.append((point, None if index == 7 else value))
    confirmed = stages.choose("confirm", {"tune": finished})
    assert [(p.arm, p.seed) for p in confirmed] == [
        (arm, seed) for arm in ("adamw", "lion") for seed in range(3)
    ]
    assert [p.config.schedule.learning_rate for p in confirmed] == [2.0**-9] * 3 + [2.0**-8] * 3
    assert [p.config.optimizer.name for p in confirmed] == ["adamw"] * 3 + ["lion"] * 3


def test_the_confirmed_runs_may_be_longer(house, capsys):
    stages = _tuned(house, overrides={"train.total_steps": 5})
    assert {p.config.train.total_steps for p in stages.known["tune"]} == {2}
    finished = [(p, 1.0 if p.arm.startswith("lion") else None) for p in stages.known["tune"]]
    confirmed = stages.choose("confirm", {"tune": finished})
    assert {(p.arm, p.config.train.total_steps) for p in confirmed} == {("lion", 5)}
    assert "has no points of 'adamw'" in capsys.readouterr().err


def test_a_stage_is_checked_before_the_one_that_it_depends_on_has_run(house):
    tune = product(_RULES, _RATES, seeds(2))
    with pytest.raises(UserError, match=r"'confirm' repeats train.seed=0 of stage 'tune'"):
        house.stages(stages=[tune, best_of("tune", per=_RULES, then=seeds(3))], overrides=_FIXED)
    fresh = seeds(3, first=50)
    with pytest.raises(UserError, match=r"has no points of 'muon'"):
        others = arms({"muon": {"optimizer.name": "muon"}})
        house.stages(stages=[tune, best_of("tune", per=others, then=fresh)], overrides=_FIXED)
    with pytest.raises(UserError, match=r"unknown config key 'train.totalsteps'"):
        then = product(fresh, axis("train.totalsteps", [4]))
        house.stages(stages=[tune, best_of("tune", per=_RULES, then=then)], overrides=_FIXED)
    with pytest.raises(UserError, match=r"best_of: optimizer.name is set by two parts"):
        then = product(fresh, axis("optimizer.name", ["lion"]))
        house.stages(stages=[tune, best_of("tune", per=_RULES, then=then)], overrides=_FIXED)
