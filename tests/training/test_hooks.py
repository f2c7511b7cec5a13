from __future__ import annotations

import contextlib
import dataclasses
import types

import jax
import numpy as np
import pytest

from gpt2_jax.training import hooks, trainer
from gpt2_jax.training.hooks import Hook, Profile, write_histograms
from gpt2_jax.training.trainer import Trainer
from tests.training.tiny import Recorder, lines, make_config, make_setup, saved_steps, steps_with


def test_a_hook_is_due_every_so_many_steps_and_at_its_own():
    def due(every, at=()):
        hook = Hook("name", every, lambda step, _: None, at)
        return [step for step in range(1, 11) if hook.due(step)]

    assert due(3) == [3, 6, 9]
    assert due(0) == []
    assert due(0, (4,)) == [4]
    assert due(5, (1, 10)) == [1, 5, 10]


def test_lines_are_written_when_they_are_due(tmp_path):
    config = make_config(log__goodput_every=5)
    Trainer(config, tmp_path, make_setup(config, [Recorder()])).run()
    assert steps_with(tmp_path, "loss") == [1, 3, 6, 9, 12]
    assert steps_with(tmp_path, "grad_norm/wte") == [6, 12]
    assert steps_with(tmp_path, "eval/count") == [4, 8, 12]
    assert steps_with(tmp_path, "goodput") == [5, 10, 12]
    last = lines(tmp_path)[-1]  # after the last validation and save, which it includes
    assert last["step"] == 12 and 0 < last["goodput"] < 1
    activities = ("training", "startup", "compilation", "data_wait", "save", "validation")
    assert all(last[f"seconds/{activity}"] > 0 for activity in activities)
    total = sum(value for name, value in last.items() if name.startswith("seconds/"))
    assert last["goodput"] == pytest.approx(last["seconds/training"] / total)


@pytest.mark.slow
def test_the_trace_has_its_steps_and_none_of_what_is_around_them(tmp_path, monkeypatch):
    events = []

    @contextlib.contextmanager
    def trace(folder):
        assert folder == str(tmp_path / "profile")
        events.append("begin")
        yield
        events.append("end")

    def make_all(run, **parts):
        """The hooks, each of which leaves its name among the events."""

        def noting(hook):
            def function(step, argument):
                if hook.name != "profile":
                    events.append(f"{hook.name} {step}")
                hook.function(step, argument)

            return dataclasses.replace(hook, function=function)

        return [noting(hook) for hook in hooks.make_hooks(run, **parts)]

    monkeypatch.setattr(jax.profiler, "trace", trace)
    monkeypatch.setattr(trainer, "make_hooks", make_all)
    config = make_config(
        log__profile_at=3, log__profile_steps=2, checkpoint__every=2, eval__every=2, log__every=99
    )
    Trainer(config, tmp_path, make_setup(config, [Recorder()])).run(5)
    begin, end = events.index("begin"), events.index("end")
    assert events[begin - 1] == "memory 2" and events[begin + 1 : end] == ["check 3", "check 4"]
    assert events[end + 1] == "save 4"


@pytest.mark.slow
def test_the_profiler_writes_a_trace(tmp_path):
    config = make_config(log__profile_at=1, log__profile_steps=1, eval__every=0)
    Trainer(config, tmp_path, make_setup(config)).run(2)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_trace_that_the_run_does_not_finish_is_written(tmp_path, monkeypatch):
    events = []

    @contextlib.contextmanager
    def trace(folder):
        yield
        events.append("end")

    def fail(step, metrics):
        raise ZeroDivisionError

    monkeypatch.setattr(jax.profiler, "trace", trace)
    config = make_config(log__profile_at=2, log__profile_steps=9)
    monkeypatch.setattr(
        trainer,
        "make_hooks",
        lambda run, **parts: [*hooks.make_hooks(run, **parts), Hook("fails", 0, fail, (4,))],
    )
    with pytest.raises(ZeroDivisionError):
        Trainer(config, tmp_path, make_setup(config)).run()
    assert events == ["end"]


@pytest.mark.parametrize(
    ("start", "stop_at", "begins_at", "ends_at"),
    [(0, 12, (2,), (5,)), (2, 12, (2,), (5,)), (0, 4, (2,), (4,)), (3, 12, (), ()), (0, 2, (), ())],
)
def test_a_step_to_profile_that_is_not_trained_is_a_message(
    tmp_path, start, stop_at, begins_at, ends_at
):
    messages = []
    progress = types.SimpleNamespace(message=messages.append)
    run = types.SimpleNamespace(
        config=make_config(log__profile_at=3, log__profile_steps=3), workdir=tmp_path
    )
    profile = Profile(run, start, stop_at, progress)
    assert (profile.begins_at, profile.ends_at) == (begins_at, ends_at)
    assert bool(messages) == (not begins_at)
    if messages:
        assert f"not among the steps of this start, {start + 1} to {stop_at}" in messages[0]


def test_histograms_are_of_every_parameter():
    written = []
    trackers = types.SimpleNamespace(histograms=lambda step, arrays: written.append((step, arrays)))
    ones = jax.numpy.ones((3, 2))
    state = types.SimpleNamespace(params={"wte": ones, "h": {"bias": ones[0]}})
    write_histograms(trackers)(7, state)
    ((step, arrays),) = written
    assert step == 7 and arrays.keys() == {"params/wte", "params/h/bias"}
    assert all(isinstance(array, np.ndarray) for array in arrays.values())


@pytest.mark.slow
def test_a_run_can_save_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    make_saver = trainer.Saver
    monkeypatch.setattr(
        trainer,
        "Saver",
        lambda *arguments, **more: make_saver(*arguments, clock=lambda: now[0], **more),
    )

    def evaluator(params, tick):
        now[0] += 20  # a minute every third step
        yield "eval/now", now[0]

    config = make_config(
        checkpoint__every=100, checkpoint__every_minutes=1.0, eval__every=1, log__every=1
    )
    Trainer(config, tmp_path, make_setup(config, [evaluator])).run()
    assert saved_steps(tmp_path) == [4, 7, 10, 12]
