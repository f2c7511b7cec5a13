"""Several processes of one run compute what one computes, stop together and fail together."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.files.lock import FileLock
from tests.recorded import recorded
from tests.runs import (
    NO_SAMPLE,
    finish,
    lines,
    losses,
    make_lab,
    once,
    start,
    start_group,
    train,
    wait_for_lines,
)

_FOREVER = "--config.train.total_steps=100000"
_BATCH = 8


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a config and its data."""
    return make_lab(tmp_path_factory, "multiprocess")


@pytest.fixture(scope="module")
def alone(lab):
    """The run of one process on one device that nothing interrupted."""
    records = {"RECORD_FOLDER": str(folder_of_records(lab, "alone"))}

    def make(workdir):
        train(lab, workdir, NO_SAMPLE, devices=1, env=records, module="tests.recorded")

    return once(lab / "alone", make)


def folder_of_records(lab, name):
    folder = lab / f"{name}-records"
    folder.mkdir(exist_ok=True)
    return folder


def mesh(data=1, fsdp=1, tensor=1):
    return [f"--config.mesh.{axis}={size}" for axis, size in locals().items()]


def last_evaluation(workdir):
    """Returns the numbers of the last validation."""
    *_, last = (line for line in lines(workdir) if "eval/loss" in line)
    return {name: value for name, value in last.items() if name.startswith("eval/")}


def losses_by_position(workdir):
    """Returns the losses at each position of the last validation."""
    found = json.loads((workdir / "loss_by_position.json").read_text())
    assert found["step"] == 20
    return np.array(found["loss_by_position"], np.float64)


def relative_error(workdir, reference):
    ours, expected = np.array(losses(workdir)), np.array(losses(reference))
    assert ours.shape == expected.shape == (20,)
    return np.abs(ours / expected - 1).max()


def test_two_processes_are_one_run(lab):
    group = start_group(lab, lab / "none", "--dry_run", processes=2, devices=2)
    errors = finish(group)
    for rank, text in enumerate(errors):
        assert f"process {rank} of 2: 2 of 4 devices" in text
    assert not (lab / "none").exists()


@pytest.mark.slow
def test_a_process_whose_peers_never_come_ends_with_a_line(lab):
    settings = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1", "GPT2_JAX_START_TIMEOUT": "1"}
    address = {"JAX_COORDINATOR_ADDRESS": "localhost:1"}
    errors = train(lab, lab / "none", "--dry_run", status=77, env=settings | address)
    assert len(errors.splitlines()) == 1
    assert errors.startswith("error: process 1 ") and "localhost:1 in 1 s" in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "axes"),
    [
        (2, 1, {"tensor": 2}),  # one replica of a batch runs across both
        (2, 4, {"data": 2, "fsdp": 2, "tensor": 2}),
        (4, 1, {"data": 2, "fsdp": 2}),
    ],
)
def test_processes_and_devices_do_not_change_the_losses(lab, alone, processes, devices, axes):
    workdir = lab / f"{processes}x{devices}"
    flags = (*mesh(**axes), NO_SAMPLE)
    finish(start_group(lab, workdir, *flags, processes=processes, devices=devices))
    error = relative_error(workdir, alone)
    print(f"{processes} processes x {devices} devices, {axes}: {error:.1e} relative")
    assert error < 1e-4
    ours, expected = losses_by_position(workdir), losses_by_position(alone)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.slow
def test_a_run_of_four_resumes_as_one_and_then_as_two_with_the_same_batches(lab, alone):
    workdir, module = lab / "elastic", "tests.recorded"
    records = folder_of_records(lab, "elastic")

    def trained(first, last):
        """Returns the recorded batches of these steps, and empties the folder for the next."""
        batches = recorded(records)
        for path in list(records.iterdir()):
            path.unlink()
        return {step: batches[step - 1] for step in range(first, last + 1)}

    settings = {"env": {"RECORD_FOLDER": str(records)}, "module": module}
    four = start_group(
        lab, workdir, *mesh(data=2, fsdp=2), NO_SAMPLE, processes=4, devices=1, **settings
    )
    wait_for_lines(workdir, four, 3)
    four[2].send_signal(signal.SIGINT)
    errors = finish(four, status=75)
    stopped = len(losses(workdir))
    assert all(f"saved at step {stopped} of" in text for text in errors)
    assert 3 <= stopped < 12
    batches = trained(1, stopped)
    train(lab, workdir, "--stop_at_step", "13", NO_SAMPLE, devices=1, **settings)
    batches |= trained(stopped + 1, 13)
    finish(start_group(lab, workdir, *mesh(tensor=2), NO_SAMPLE, processes=2, **settings))
    batches |= trained(14, 20)

    expected = recorded(folder_of_records(lab, "alone"))
    assert batches == {step: expected[step - 1] for step in range(1, 21)}
    assert all(sorted(batch) == list(range(_BATCH)) for batch in batches.values())
    error = relative_error(workdir, alone)
    print(f"4 processes to step {stopped}, 1 to 13, 2 to 20: {error:.1e} relative")
    assert error < 1e-4


@pytest.mark.slow
def test_the_json_document_is_all_that_processes_print(lab):
    flags = ("--config.train.total_steps=1", "--config.schedule.warmup_steps=1", NO_SAMPLE)
    pair = start_group(
        lab, lab / "json", "--json", *flags, *mesh(fsdp=2), processes=2, stdout=subprocess.PIPE
    )
    (first, errors), (second, _) = [process.communicate(timeout=200) for process in pair]
    assert json.loads(first)["step"] == 1 and second == "", errors


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(lab):
    texts = ["one red fish", "two blue", "fish fish fish fish"]
    lines = [json.dumps({"text": text}) for text in texts]
    (lab / "lambada_test.jsonl").write_text("\n".join(lines))
    flags = (
        *("--config.train.total_steps=3", NO_SAMPLE, f"--config.eval.data={lab}"),
        *("--config.eval.tasks=lambada_openai,lambada_gpt2", "--config.model.context_length=32"),
    )
    train(lab, lab / "one-evaluates", *flags, devices=1)
    finish(start_group(lab, lab / "two-evaluate", *flags, *mesh(tensor=2), processes=2))
    one, two = (last_evaluation(lab / name) for name in ("one-evaluates", "two-evaluate"))
    assert one.keys() == two.keys() and "eval/lambada_gpt2/acc_filtered" in one
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.slow
def test_a_workdir_that_is_not_shared_is_refused_by_name(lab):
    workdirs = [lab / f"disk-of-{rank}" for rank in range(2)]
    pair = start_group(lab, workdirs, NO_SAMPLE, *mesh(fsdp=2), processes=2)
    errors = [process.communicate(timeout=100)[1] for process in pair]
    assert pair[1].returncode == 2 and pair[0].returncode in (77, 134), errors
    assert "disk-of-1 is another folder in process 1" in errors[1]


@pytest.mark.slow
def test_a_process_that_dies_takes_the_others_with_it(lab):
    workdir = lab / "dead"
    pair = start_group(lab, workdir, _FOREVER, NO_SAMPLE, *mesh(fsdp=2), processes=2)
    wait_for_lines(workdir, pair, 2)
    pair[1].kill()
    pair[1].communicate()
    _, errors = pair[0].communicate(timeout=60)
    # By a collective that failed or by a heartbeat that stopped: start all of them again.
    assert pair[0].returncode in (77, 134), errors


def supervised(lab, workdir, *flags, fault):
    """Returns the errors of a run of two processes with a fault, which is restarted until done."""
    python, launch = sys.executable, Path(__file__).parents[1] / "launch"
    supervise = [python, str(launch / "supervise.py"), "--backoff", "0.1", "--"]
    local = [python, str(launch / "local.py"), "--processes", "2", "--"]
    settings = {"FAULT": fault, "FAULT_MET": str(workdir.with_suffix(".met"))}
    process = start(
        lab,
        workdir,
        *flags,
        devices=1,
        env=settings,
        module="tests.faulty",
        launcher=[*supervise, *local],
    )
    try:
        _, errors = process.communicate(timeout=500)
    finally:
        while process.poll() is None:  # the second signal makes them kill
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
    assert process.returncode == 0, errors
    return errors


@pytest.fixture(scope="module")
def pair(lab):
    """The run of two processes that nothing interrupted."""
    flags = (NO_SAMPLE, *mesh(fsdp=2))
    return once(
        lab / "pair", lambda workdir: finish(start_group(lab, workdir, *flags, processes=2))
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("fault", "statuses"),
    [("1:12:SIGSTOP", ("77",)), ("0:12:SIGKILL", ("77", "134", "137"))],
)
def test_a_run_that_hangs_or_dies_is_started_again_and_ends_as_if_it_had_not(
    lab, pair, fault, statuses
):
    workdir = lab / f"supervised-{fault.rpartition(':')[2]}"
    flags = (NO_SAMPLE, *mesh(fsdp=2), "--config.train.hang_timeout=40")
    errors = supervised(lab, workdir, *flags, fault=fault)
    (status,) = re.findall(r"supervise: .*ended with (\d+) .*; restarting it", errors)
    assert status in statuses, errors
    if "SIGSTOP" in fault:
        assert "error: process 0 of 2 got no further than step" in errors
    assert losses(workdir) == losses(pair)
    assert last_evaluation(workdir) == last_evaluation(pair)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["0:8:manifest", "1:8:arrays"])
def test_a_save_that_fails_in_one_process_fails_in_all_and_the_next_is_whole(lab, pair, fault):
    workdir = lab / f"full-{fault.rpartition(':')[2]}"
    settings = {"FAULT": fault, "FAULT_MET": str(workdir.with_suffix(".met"))}
    flags = (NO_SAMPLE, *mesh(fsdp=2))
    began = time.monotonic()
    errors = finish(
        start_group(lab, workdir, *flags, processes=2, env=settings, module="tests.faulty")
    )
    print(f"{fault}: done after {time.monotonic() - began:.0f} s")
    folder = workdir / "checkpoints"
    assert (
        f"warning: cannot save a checkpoint in {folder}: no space left on the disk (failure 1 of 5"
        in errors[0]
    )
    assert sorted(path.name for path in folder.iterdir()) == ["16", "20"]
    assert losses(workdir) == losses(pair)


@pytest.mark.slow
def test_a_process_that_dies_as_the_others_resume_takes_them_with_it(lab):
    workdir, flags = lab / "dead-again", (NO_SAMPLE, *mesh(fsdp=2))
    finish(start_group(lab, workdir, *flags, "--stop_at_step", "5", processes=2))
    settings = {"FAULT": "1:0:restore", "FAULT_MET": str(workdir.with_suffix(".met"))}
    pair = start_group(lab, workdir, *flags, processes=2, env=settings, module="tests.faulty")
    errors = [process.communicate(timeout=200)[1] for process in pair]
    assert pair[1].returncode == -9 and pair[0].returncode in (77, 134), errors


@pytest.mark.slow
def test_a_workdir_in_use_is_refused_by_all_processes(lab):
    workdir = lab / "in-use"
    workdir.mkdir()
    lock = FileLock(workdir)
    lock.acquire()
    try:
        errors = finish(start_group(lab, workdir, *mesh(fsdp=2), processes=2), status=2)
    finally:
        lock.release()
    for text in errors:
        assert f"is in use by process {os.getpid()} on host {socket.gethostname()}, " in text
    assert list(workdir.iterdir()) == []


@pytest.mark.slow
def test_a_signal_before_the_first_step_of_a_resumed_run_stops_it_after_that_step(lab):
    workdir, flags = lab / "early", (_FOREVER, NO_SAMPLE, *mesh(fsdp=2))
    finish(start_group(lab, workdir, *flags, "--stop_at_step", "5", processes=2))
    pair = start_group(lab, workdir, *flags, processes=2)
    for line in pair[0].stderr:
        if "from step 5" in line:  # compiling; both have met, and restored
            break
    for process in pair:
        process.send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=100)[1] for process in pair]
    assert [process.returncode for process in pair] == [75, 75], errors
    assert losses(workdir)[-1] and len(losses(workdir)) < 12
