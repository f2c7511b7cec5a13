"""A run of the command that is killed keeps the best step of one that is not, to the bit."""

from __future__ import annotations

import json

import pytest

from tests.runs import NO_SAMPLE, arrays, finish, identical, lines, make_lab, start_group, train

_FLAGS = (
    NO_SAMPLE,
    "--config.checkpoint.best=eval/loss",
    "--config.checkpoint.keep=1",
    "--config.checkpoint.every=4",
    "--config.eval.every=3",
    # So large that the loss rises and falls several times.
    "--config.schedule.learning_rate=0.3",
    "--config.schedule.name=constant",
)
_BEST, _PRUNING = "gpt2_jax.training.best", "gpt2_jax.checkpoint.pruning"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory, "best")


@pytest.fixture(scope="module")
def whole(lab):
    """The run that nothing interrupted."""
    train(lab, lab / "whole", *_FLAGS, devices=1)
    return lab / "whole"


def saved(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def validations(workdir):
    return {line["step"]: line["eval/loss"] for line in lines(workdir) if "eval/loss" in line}


def check_equal(workdir, whole):
    assert validations(workdir) == validations(whole)
    assert saved(workdir) == saved(whole)
    record = (whole / "checkpoints" / "best.json").read_text()
    assert (workdir / "checkpoints" / "best.json").read_text() == record
    best = json.loads(record)["step"]
    assert best < 20 and identical(arrays(workdir, best), arrays(whole, best))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        "0:8:SIGKILL",
        f"0:2:{_BEST}.write_record",
        f"0:3:{_BEST}.remove_steps",
        f"0:1:{_PRUNING}.remove_tree",
        "0:3:gpt2_jax.checkpoint.commit.write_manifest",
    ],
)
def test_the_best_step_of_a_run_that_was_killed_is_that_of_one_that_was_not(lab, whole, fault):
    workdir, met = lab / fault.replace(":", "-"), lab / f"{fault}.met"
    values = validations(whole)
    best = min(values, key=values.__getitem__)
    assert saved(whole) == sorted([str(best), "20", "best.json"]), values
    env = {"FAULT": fault, "FAULT_MET": str(met)}
    train(lab, workdir, *_FLAGS, devices=1, env=env, module="tests.faulty", status=-9)
    assert met.exists()
    train(lab, workdir, *_FLAGS, devices=1)
    check_equal(workdir, whole)


@pytest.mark.slow
def test_two_processes_keep_the_best_step_and_end_early_together(lab, whole):
    workdir = lab / "two"
    values = validations(whole)
    assert values[3] < values[6]
    flags = (*_FLAGS, "--config.train.patience=1", "--config.mesh.data=2")
    for _ in range(2):  # the second start knows that the run has ended
        errors = finish(start_group(lab, workdir, *flags, processes=2))
        assert "of step 3, in 1 validation, as train.patience=1 asks" in errors[0], errors
        assert "best of 6 steps: 3, with eval/loss" in errors[0], errors
        assert "best of" not in errors[1]
        assert saved(workdir) == ["3", "6", "best.json"]
