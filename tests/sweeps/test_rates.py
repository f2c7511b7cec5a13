"""Reports of sweeps over learning rates: groups of points, fairness, stages."""

from __future__ import annotations

import json
from pathlib import Path

from gpt2_jax.sweeps.report.cautions import cautions
from gpt2_jax.sweeps.report.charts import sections
from gpt2_jax.sweeps.report.markdown import markdown
from gpt2_jax.sweeps.report.outcomes import read_sweep
from gpt2_jax.sweeps.report.page import page
from gpt2_jax.sweeps.report.rates import learning_rates
from gpt2_jax.sweeps.report.write import overview
from tests.sweeps.made_sweep import write_sweep

RATE = "schedule.learning_rate"


def _tuned(folder: Path, counts: dict[str, int], best: int) -> Path:
    finals, overrides = {}, {}
    for optimizer, count in counts.items():
        for index in range(count):
            arm = f"{optimizer} {index}"
            finals[arm] = [1.5 + 0.01 * (index - best) ** 2]
            rate = 2.0 ** (index - 10)
            overrides[arm] = {"train.total_steps": 9, "optimizer.name": optimizer}
            overrides[arm]["schedule.learning_rate"] = rate
    return write_sweep(folder, finals, baseline="adamw 0", stage="tune", overrides=overrides)


def test_unfair_tuning_is_flagged(tmp_path):
    fair = read_sweep(_tuned(tmp_path / "fair", {"adamw": 5, "lion": 5}, 2))
    assert not [each for each in cautions(fair, "tune", []) if "Fairness" in each]
    edge = read_sweep(_tuned(tmp_path / "edge", {"adamw": 5, "lion": 5}, 4))
    found = cautions(edge, "tune", [])
    assert len(found) == 2 and "optimizer.name=adamw is best at 0.015625, the largest" in found[0]
    unequal = read_sweep(_tuned(tmp_path / "unequal", {"adamw": 5, "lion": 4}, 2))
    assert "different numbers of learning rates" in cautions(unequal, "tune", [])[0]
    assert "Learning rates" in page(edge)


def test_groups_of_rates_have_the_names_of_arms_and_many_arms_no_curves(tmp_path):
    rates, bases, finals, overrides = [2.0**-8, 2.0**-7], {"standard": None, "muP": 64}, {}, {}
    for width in (64, 128, 256, 512):
        for name, base in bases.items():
            for rate in rates:
                arm = f"{name} model.d_model={width} schedule.learning_rate={rate}"
                finals[arm] = [1.5]
                overrides[arm] = {"model.d_model": width, "schedule.learning_rate": rate}
                overrides[arm] |= {} if base is None else {"model.mup_base_width": base}
    sweep = read_sweep(write_sweep(tmp_path / "s", finals, baseline=None, overrides=overrides))
    groups = learning_rates(sweep)["main"]
    assert list(groups)[:2] == ["standard model.d_model=64", "muP model.d_model=64"]
    assert all([*found] == rates for found in groups.values())
    assert [section.heading for section in sections(sweep, "main")] == ["Learning rates"]
    assert "| arm | seeds | mean [95 %] |\n" in markdown(sweep)  # other columns say nothing
    assert overview(tmp_path).count("best of 2 rates") == len(overview(tmp_path).splitlines()) - 2


def test_two_stages_have_a_table_each(tmp_path):
    folder = _tuned(tmp_path / "s", {"adamw": 3, "lion": 3}, 1)
    finals = {"adamw 0": [1.5, 1.51, 1.52, 1.53, 1.54], "lion 1": [1.45, 1.46, 1.47, 1.48, 1.49]}
    write_sweep(folder, finals, baseline="adamw 0", stage="confirm", first_seed=10)
    text = markdown(read_sweep(folder))
    assert "## Stage tune" in text and "## Stage confirm" in text
    assert "| lion 1 | 5 |" in text.split("## Stage confirm")[1]


def test_the_rate_of_the_base_config_counts(tmp_path):
    finals = {"ok": [1.3], "warm": [1.4], "hot": [1.5]}
    overrides = {"ok": {}, "warm": {RATE: 0.02}, "hot": {RATE: 0.04}}
    folder = write_sweep(tmp_path / "s", finals, baseline=None, overrides=overrides)
    for path in folder.glob("points/*/run/config.json"):
        config = json.loads(path.read_text())
        own = json.loads((path.parents[1] / "point.json").read_text())["overrides"]
        config["schedule"] = {"learning_rate": own.get(RATE, 0.005)}
        path.write_text(json.dumps(config))
    sweep = read_sweep(folder)
    (label, rates), *more = learning_rates(sweep)["main"].items()
    assert not more and [*rates] == [0.005, 0.02, 0.04]
    assert {*label.split(", ")} == {*finals}
    found = [each for each in cautions(sweep, "main", []) if "Fairness" in each]
    assert len(found) == 1 and "is best at 0.005, the smallest" in found[0]
