"""Tests that a mistake in a sweep is refused in one line, and that nothing has started."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.sweeps import axis, product, seeds
from tests.cli.refusals import refused

_FILE = """from gpt2_jax.sweeps import Sweep, arms, axis, best_of, chain, product, seeds, zipped

def get_sweep():
    return Sweep("tiny.py", {})
"""


def _refused(house, capsys, sweep, *flags):
    text = sweep if "get_sweep" in sweep or "get_config" in sweep else _FILE.format(sweep)
    (house.folder / "sweep.py").write_text(text)
    return refused(house.folder, capsys, "sweep", "--sweep", "sweep.py", "--out", "out", *flags)


@pytest.mark.parametrize(
    ("sweep", "problem"),
    [
        ("axis('model.positon', ['rotary'])", "did you mean 'model.position'?"),
        ("axis('model.position', ['rotory'])", "did you mean 'rotary'?"),
        ("zipped(seeds(3), axis('model.norm', ['rms']))", "sweep.py, line 4: zipped: the parts"),
        ("seeds(3), baseline='adamw'", "baseline adamw is no arm; the arms are 'base'"),
        ("chain(seeds(3), seeds(2))", "duplicate points: 'base' with train.seed=0"),
        ("seeds(3), metric='eval/los'", "did you mean 'eval/loss'?"),
        ("seeds(3), metric='eval/ema_loss'", "set optimizer.ema_decay, which is 0"),
        ("seeds(3), metrik='eval/loss'", "sweep.py, line 4: TypeError"),
        ("seed(3)", "sweep.py, line 4: NameError: name 'seed' is not defined"),
        ("seeds(3), delta=-1", "delta must be greater than 0"),
        ("seeds(3), stages=[]", "give it either points=, or stages="),
        ("stages=[seeds(3)]", "stages must be a list of two"),
        ("stages=[seeds(3), best_of('tun', per=arms({'a': {}}), then=seeds(1))]", "best_of('tun')"),
        ("5", "points must be axis(...), product(...) or the like, not 5"),
        ("seeds(3)\n  pass", "sweep.py, line "),
        ("import sys\ndef get_sweep():\n    sys.exit(0)", "sweep.py, line 3: SystemExit(0)"),
        ("def get_sweep():\n    return 3", "get_sweep() must return a gpt2_jax.sweeps.Sweep"),
        ("def get_config():\n    return 3", "sweep.py: it defines no get_sweep(): it is a config"),
        ("seeds(2), overrides={'data.path': 'nowhere'}", "no data folder nowhere"),
        ("seeds(2), overrides={'data.path': None}", "data.path is not set"),
    ],
)
def test_a_mistake_in_a_sweep_file_is_refused(house, capsys, sweep, problem):
    assert problem in _refused(house, capsys, sweep)


def test_the_loss_of_the_average_of_the_parameters_can_be_compared(house):
    averaged = {"optimizer.ema_decay": 0.9}
    for metric in ("eval/ema_loss", "eval/ema_bits_per_byte"):
        stages = house.stages(seeds(2), overrides=averaged, metric=metric)
        assert stages.sweep.metric == metric


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--workers", "0"), "--workers must be between 1 and 1024, not 0"),
        (("--dry_run", "--print_commands"), "cannot be combined"),
        (("--tokens_per_second", "5"), "needs --dry_run"),
        (("--dry_run", "--tokens_per_second", "0"), "must be greater than 0"),
        (("--worker", "2"), "did you mean '--workers'?"),
    ],
)
def test_a_wrong_flag_is_refused(house, capsys, flags, problem):
    assert problem in _refused(house, capsys, "seeds(2)", *flags)


def test_more_gpus_than_there_are_are_refused(house, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    flags = ("--devices_per_point", "2", "--workers", "2")
    assert "needs 4 NVIDIA GPUs, and there are 2" in _refused(house, capsys, "seeds(2)", *flags)


def test_a_missing_file_or_folder_is_refused(house, capsys):
    for words, problem in (
        (("--sweep", "tini.py", "--out", "out"), "no sweep file tini.py; did you mean 'tiny.py'?"),
        (("--sweep", "data", "--out", "out"), "expected a Python file"),
        (("--sweep", "tiny.py"), "--out DIR is missing"),
        (("--out", "out"), "required: --sweep"),
    ):
        assert problem in refused(house.folder, capsys, "sweep", *words)


def test_the_folder_of_another_sweep_or_of_none_is_refused(house, capsys):
    house.run(house.stages(product(axis("model.norm", ["layer", "rms"]), seeds(2))))
    norms = "product(axis('model.norm', ['layer', 'rms']), seeds({}))"
    for sweep, problem in (
        ("seeds(2), metric='eval/perplexity'", "metric ('eval/loss' -> 'eval/perplexity')"),
        (f"{norms.format(2)}, delta=0.1", "delta (None -> 0.1)"),
        (f"{norms.format(2)}, overrides={{'train.total_steps': 3}}", "none of this one's points"),
        ("seeds(2)", "holds another sweep: norm-"),
    ):
        assert problem in _refused(house, capsys, sweep)
    (house.folder / "sweep.py").write_text(_FILE.format(norms.format(3)))
    words = ["sweep", "--sweep", "sweep.py", "--out", "out", "--dry_run", "--json"]
    assert main(words) == 0  # more seeds are no other sweep
    assert json.loads(capsys.readouterr().out)["stages"]["main"]["points_done"] == 4
    (house.folder / "run").mkdir()
    (house.folder / "run" / "config.json").write_text("{}")
    problem = refused(house.folder, capsys, "sweep", "--sweep", "sweep.py", "--out", "run")
    assert "--out run is not the folder of a sweep: it has config.json" in problem


def test_a_dry_run_and_the_commands_start_nothing(house, capsys):
    (house.folder / "sweep.py").write_text(_FILE.format("seeds(3)"))
    words = ["sweep", "--sweep", "sweep.py", "--out", "a b"]
    assert main([*words, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "stage main: 3 points, 1,536 tokens" in out and "time: unknown" in out
    assert main([*words, "--dry_run", "--tokens_per_second=64"]) == 0
    assert "about 24s for 1,536 tokens" in capsys.readouterr().out
    assert main([*words, "--print_commands"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("gpt2-jax train --config tiny.py --workdir 'a b/points/base-s0-")
    assert first.endswith("/run' --config.train.seed=0") and len(others) == 2
    assert not (house.folder / "a b").exists()


def test_the_words_of_sweep_files_import_no_jax():
    code = "import sys, gpt2_jax.sweeps, gpt2_jax.cli.sweep; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
