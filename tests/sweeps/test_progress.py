"""What a sweep says, while it runs, of the time that is left."""

from __future__ import annotations

from types import SimpleNamespace

from gpt2_jax.sweeps import runner, seeds
from gpt2_jax.sweeps.folder import DIVERGED, DONE, Status


class _Engine:
    """Ends each point after so many seconds of a clock, in a state."""

    at_once, when_stopped, stop, running = 1, "", False, ()

    def __init__(self, folder, clock, ends):
        self._folder, self._clock, self._ends = folder, clock, ends

    def run(self, points, on_end, on_wait):
        for point, (state, seconds) in zip(points, self._ends, strict=True):
            self._clock.now += seconds
            status = Status(0 if state == DONE else 76, state, seconds=seconds, attempts=1)
            self._folder.write_status(point.name, status)
            on_end(point, status)

    def close(self, exit_status):
        pass


def test_a_point_that_diverged_is_not_counted_as_trained_to_its_end(house, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: clock.now))
    ends = [(DIVERGED, 10.0), (DONE, 50.0), (DIVERGED, 10.0), (DONE, 50.0)]

    def make(folder, base, log):
        return _Engine(folder, clock, ends)

    runner.run_sweep(house.stages(seeds(4)), "sweep.py", house.out, make, log=house.log.append)
    shown = [line.rpartition(", ")[2] for line in house.log if line.startswith("[")]
    # One of four has been trained in 60 s, and two are left; then one is, after 70 s.
    assert shown == ["3 waiting", "eta 2m00s", "eta 1m10s", "0 waiting"]
