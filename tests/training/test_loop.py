"""The order of everything around a step, stops at any point of it, and errors in it."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.errors import Preempted
from gpt2_jax.training import hooks, loop, trainer
from gpt2_jax.training.hooks import Hook, make_hooks
from gpt2_jax.training.trainer import Trainer
from gpt2_jax.training.watchdog import Watchdog
from tests.training.tiny import Recorder, make_config, make_setup, saved_steps, steps_with


def train(config, workdir, *evaluators, stop_at_step=None, **changes):
    return Trainer(config, workdir, make_setup(config, evaluators, **changes)).run(stop_at_step)


@pytest.fixture
def reports(monkeypatch):
    """What the watchdog hears, in order."""
    heard = []

    class Listener(Watchdog):
        def report(self, activity):
            heard.append(activity)
            super().report(activity)

    monkeypatch.setattr(trainer, "Watchdog", Listener)
    return heard


@pytest.fixture
def stop_when(monkeypatch):
    """Sets the condition on which the run is asked to stop, evaluated after each step or batch."""

    def set_condition(condition):
        request = types.SimpleNamespace(
            requested=condition, note_saved=lambda step: None, close=lambda: None
        )
        monkeypatch.setattr(trainer, "StopRequest", lambda: request)

    return set_condition


@pytest.mark.slow
def test_the_watchdog_hears_of_everything_that_a_run_does(tmp_path, reports):
    train(make_config(eval__every=2, checkpoint__every=2), tmp_path, Recorder(), stop_at_step=3)

    def after(step):
        """The metrics of the step, and what is due after it."""
        validation = ["", "", ", after eval/count", ", after sample"]
        yield f"step {step}"
        yield f"the save at step {step}"
        yield from (f"the validation at step {step}{number}" for number in validation)

    assert reports == [
        *("its start", "compiling", "the memory at step 0", "compiling", "step 1", "step 2"),
        "step 1",  # its metrics are read while the device computes step 2
        *after(2),
        "the memory at step 2",
        "step 3",
        *after(3),
        "the goodput at step 3",
        "the end of the save at step 3",
    ]


def test_memory_is_given_back_before_the_first_step_and_after_validations(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(hooks, "return_freed_memory", lambda: calls.append(1))
    train(make_config(eval__every=2, checkpoint__every=2), tmp_path, stop_at_step=5)
    assert len(calls) == 1 + 2


def test_hooks_are_called_in_order_and_see_the_state_of_their_step(tmp_path, monkeypatch):
    calls = []

    def make_all(run, **parts):
        def on_metrics(step, metrics):
            assert metrics.keys() >= {"loss", "grad_norm"}
            calls.append(f"metrics of {step}")

        def on_state(step, state):
            assert int(state.step) == step
            calls.append(f"state after {step}")

        first = Hook("first", 2, on_state, needs_state=True)
        at_start = Hook("start", 0, on_state, at=(3,), at_start=True, needs_state=True)
        return [first, Hook("metrics", 1, on_metrics), at_start, *make_hooks(run, **parts)[-5:]]

    monkeypatch.setattr(trainer, "make_hooks", make_all)
    train(make_config(), tmp_path, stop_at_step=4)
    assert calls == [
        "state after 0",
        "metrics of 1",
        "metrics of 2",  # before the hooks on the state, whatever their order in the list
        "state after 2",
        "metrics of 3",
        "state after 3",
        "metrics of 4",
        "state after 4",
    ]


@pytest.mark.parametrize("needs_state", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_exception_of_a_hook_ends_the_run_and_the_save_in_progress_is_committed(
    tmp_path, monkeypatch, needs_state
):
    def fail(step, _):
        raise ZeroDivisionError("a bug")

    def make_all(run, **parts):
        return [*make_hooks(run, **parts), Hook("fails", 0, fail, (7,), needs_state=needs_state)]

    config = make_config(eval__every=0)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "make_hooks", make_all)
        with pytest.raises(ZeroDivisionError):
            train(config, tmp_path)
    assert saved_steps(tmp_path) == [5]
    assert not (tmp_path / "lock").exists()
    assert steps_with(tmp_path, "loss") == [1, 3, 6]
    assert train(config, tmp_path)["step"] == 12  # from step 5, and the lines of step 6 once
    assert steps_with(tmp_path, "loss") == [1, 3, 6, 9, 12]


@pytest.mark.slow
def test_a_validation_missed_by_a_stop_is_made_up_for(tmp_path, stop_when):
    config, recorder = make_config(), Recorder()
    # Asked after every step and once in a validation: after steps 1 to 4, then in that of step 4
    # and after steps 5 to 12 with that of step 8.
    for questions, stops_at in ((4, 4), (10, 12)):
        answers = iter([False] * (questions - 1) + [True])
        stop_when(lambda answers=answers: next(answers))
        with pytest.raises(Preempted, match=f"saved at step {stops_at} of 12"):
            train(config, tmp_path, recorder)
        assert saved_steps(tmp_path)[-1] == stops_at
    stop_when(lambda: False)
    assert train(config, tmp_path, recorder) == {"step": 12, "eval/count": 3.0}
    assert steps_with(tmp_path, "eval/count") == [4, 8, 12] and len(recorder.seen) == 3


@pytest.mark.slow
def test_a_stop_during_a_validation_saves_and_the_validation_is_made_up_for(tmp_path, stop_when):
    config, asked = make_config(), []  # step 4 is not due to be saved

    def stopped_meanwhile(params, tick):
        tick()
        asked.append(True)
        tick()
        pytest.fail("the evaluator continues although the run was asked to stop")
        yield

    stop_when(lambda: bool(asked))
    for _ in ("the validation of step 4", "the same on the next start"):
        asked.clear()
        with pytest.raises(Preempted, match="saved at step 4 of 12"):
            train(config, tmp_path, stopped_meanwhile)
        assert saved_steps(tmp_path) == [4]
    asked.clear()
    assert train(config, tmp_path, Recorder()) == {"step": 12, "eval/count": 3.0}
    assert steps_with(tmp_path, "eval/count") == [4, 8, 12]


def test_a_stop_at_a_step_that_is_being_saved_saves_it_once(tmp_path, stop_when):
    config, saves = make_config(eval__every=5), []

    def stopped_meanwhile(params, tick):
        saves.extend(path.name for path in (tmp_path / "checkpoints").glob("5*"))
        stop_when_asked.append(True)
        tick()
        yield

    stop_when_asked = []
    stop_when(lambda: bool(stop_when_asked))
    with pytest.raises(Preempted, match="saved at step 5 of 12"):
        train(config, tmp_path, stopped_meanwhile)
    assert saves and saved_steps(tmp_path) == [5]


def test_the_loop_waits_for_nothing_but_the_metrics_of_the_step_before(tmp_path, monkeypatch):
    reads, started = [], 0

    class Scalar:
        """A number of a step that tells when the host reads it."""

        def __init__(self, value):
            self._value, self._step = value, started

        def __array__(self, *args, **kwargs):
            reads.append((self._step, started))
            return np.asarray(self._value, *args, **kwargs)

        def __float__(self):
            return float(self.__array__())

        def __int__(self):
            return int(self.__array__())

    compile_step = loop.compile_train_step

    def compile_watched(*args, **options):
        run = compile_step(*args, **options)

        def step(state, batch, numbers):
            nonlocal started
            started += 1
            # Not even a number for the step is made by the host: that would be a transfer.
            with jax.transfer_guard("disallow"):
                state, metrics = run(state, batch, numbers)
            return state, jax.tree.map(Scalar, metrics)

        return step

    monkeypatch.setattr(loop, "compile_train_step", compile_watched)
    config = make_config(eval__every=0, checkpoint__every=100, log__every=1)
    train(config, tmp_path, stop_at_step=6)
    assert {step for step, _ in reads} == set(range(1, 7))
    # Those of the last step are read when nothing is left to compute.
    assert all(running == min(step + 1, 6) for step, running in reads)


def test_a_transfer_guard_sees_what_the_host_gives_to_a_step():
    double = jax.jit(lambda x: 2 * x)
    double(jnp.float32(1))
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="host-to-device"):
        double(np.float32(1))
