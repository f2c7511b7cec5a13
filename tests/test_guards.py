"""What guards a run: it has its workdir to itself, and ends when it hangs."""

from __future__ import annotations

import socket

import pytest

from tests.runs import NO_SAMPLE, losses, make_lab, start, train, wait_for_lines

_FOREVER = "--config.train.total_steps=100000"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a config and its data."""
    return make_lab(tmp_path_factory, "guards")


@pytest.mark.slow
def test_a_second_trainer_is_refused_and_can_resume_once_the_first_is_killed(lab):
    workdir = lab / "shared"
    flags = (_FOREVER, NO_SAMPLE, "--config.checkpoint.every=2")
    with start(lab, workdir, *flags, devices=1) as first:
        try:
            wait_for_lines(workdir, [first], 1)
            errors = train(lab, workdir, *flags, "--config.log.every=7", devices=1, status=2)
            assert len(errors.splitlines()) == 1, errors
            assert f"is in use by process {first.pid} on host {socket.gethostname()}, " in errors
            assert '"every": 7' not in (workdir / "config.json").read_text()
            wait_for_lines(workdir, [first], len(losses(workdir)) + 5)
        finally:
            first.kill()
    assert (workdir / "lock").exists()
    stop_at = len(losses(workdir)) + 1
    errors = train(lab, workdir, *flags, "--stop_at_step", str(stop_at), devices=1)
    assert "from step" in errors and len(losses(workdir)) == stop_at
    assert not (workdir / "lock").exists()


@pytest.mark.slow
def test_a_run_that_hangs_ends_with_stacks_and_resumes_to_the_same_end(lab):
    whole, workdir = lab / "whole", lab / "hung"
    train(lab, whole, NO_SAMPLE, devices=1)
    settings = {
        "module": "tests.faulty",
        "env": {"FAULT": "0:12:block", "FAULT_MET": str(lab / "hung.met")},
        "devices": 1,
    }
    flags = (NO_SAMPLE, "--config.train.hang_timeout=40")
    errors = train(lab, workdir, *flags, **settings, status=77)
    assert "in wait_for_a_disk_that_never_answers" in errors
    assert errors.splitlines()[-1].startswith("error: this process got no further than step 13 in")
    assert len(losses(workdir)) == 11
    train(lab, workdir, *flags, **settings)
    assert losses(workdir) == losses(whole)
