"""Drives the engine of one model in a thread of its own, from a bounded queue.

The thread never waits for a client: it hands on what is new after every step of the engine, and
what nobody reads is cancelled. Requests to cancel are obeyed before the next step, so that a slot
is free within one block.
"""

from __future__ import annotations

import enum
import threading
import time
import traceback
from collections.abc import Callable

from gpt2_jax.errors import error_text, print_stderr
from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.requests import Request
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.job import Job, Part
from gpt2_jax.serve.queue import FairQueue
from gpt2_jax.serve.running import Observer, Running
from gpt2_jax.serve.warm import Compilations, warm_start

MOST_QUEUED = 256
"""How many prompts can wait, of all clients together."""
QUEUE_SECONDS = 300.0
"""How long a prompt waits at most, by default."""


class State(enum.Enum):
    """Says what a worker does with requests."""

    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Worker:
    """Generates for jobs, which any thread may submit, cancel and await.

    Attributes:
      num_slots: how many texts are generated at a time.
      max_length: the most tokens of a text, prompt included.
      occupancy: what the engine held after its last step, whose own lists change meanwhile.
      compilations: counts what the thread has compiled since the warm start.
      startup_error: what ended the warm start.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        *,
        observer: Observer,
        most_queued: int = MOST_QUEUED,
        queue_seconds: float = QUEUE_SECONDS,
        warm: bool = True,
    ) -> None:
        """Makes the engine; `start` starts the thread.

        Args:
          make_engine: is called again after a failure.
          observer: of what happens.
          most_queued: prompts that can wait.
          queue_seconds: how long a prompt waits at most.
          warm: whether to compile all programs before the first request.
        """
        self._make_engine, self._observer, self._warm = make_engine, observer, warm
        self._running = Running(make_engine(), observer)
        self.num_slots, self.max_length = self._engine.num_slots, self._engine.max_length
        self._most_queued, self._queue_seconds = most_queued, queue_seconds
        self._state = State.WARMING
        self._changed = threading.Condition()
        # These and the state are guarded by `_changed`. So is the way of a prompt from the queue to
        # `_running`, of which only the thread changes anything.
        self._queue: FairQueue[Part] = FairQueue()
        self._cancelled: list[Job] = []
        self._stopping = False
        self.occupancy = self._engine.occupancy()
        self.compilations = Compilations()
        self.startup_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def _engine(self) -> Engine:
        return self._running.engine

    @property
    def state(self) -> State:
        """Returns what it does with requests."""
        return self._state

    @property
    def num_waiting(self) -> int:
        """Returns how many prompts wait in the queue, and texts of the engine for a slot."""
        return self.num_queued + self.occupancy.waiting

    @property
    def num_queued(self) -> int:
        """Returns how many prompts wait in the queue, of which the engine does not know yet."""
        with self._changed:
            return len(self._queue)

    @property
    def idle(self) -> bool:
        """Returns whether nothing is queued and nothing runs."""
        with self._changed:
            return not self._queue and not self._running.parts

    @property
    def alive(self) -> bool:
        """Returns whether the thread runs."""
        return self._thread.is_alive()

    def check(self, request: Request) -> None:
        """Raises UserError for a request that the engine cannot run; any thread may call it."""
        self._engine.check(request)

    def start(self) -> None:
        """Starts the thread, which first compiles the programs."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queues all prompts of a job, or none.

        Raises:
          ApiError: 429 if the queue has no room, 503 unless the worker is ready.
        """
        with self._changed:
            if self._state is not State.READY:
                raise unavailable(self._state)
            if len(self._queue) + len(job.parts) > self._most_queued:
                raise ApiError(
                    429,
                    f"the queue is full: {len(self._queue)} prompts wait, of at most "
                    f"{self._most_queued}; try again later",
                    code="queue_full",
                )
            self._queue.push(job.client, job.parts)
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Ends a job, wherever it is; one that has ended stays as it is."""
        with self._changed:
            if job.ended or job.complete:
                return
            job.ended = True
            self._queue.remove(job.parts)
            self._cancelled.append(job)
            self._changed.notify_all()

    def drain(self) -> None:
        """Refuses all jobs from now on, also those in the queue; those that run go on."""
        with self._changed:
            if self._state is State.FAILED:
                return
            self._state = State.DRAINING
            for job in {part.job for part in self._queue.items()}:
                if not job.begun:  # else it is answered as a whole
                    self._queue.remove(job.parts)
                    job.fail(unavailable(State.DRAINING))

    def stop(self) -> None:
        """Ends the thread after its step; what runs fails."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Waits for the thread to end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        self.compilations.listen_to_this_thread()
        try:
            self._work()
        finally:
            self.compilations.close()

    def _work(self) -> None:
        try:
            if self._warm:
                warm_start(self._engine)
        except Exception as error:
            self.startup_error, self._state = error, State.FAILED
            return
        self.compilations.reset()
        with self._changed:
            if self._state is State.WARMING:
                self._state = State.READY
        while self._wait():
            self._feed()
            self.occupancy = self._engine.occupancy()
            try:
                if self._engine.busy:
                    self._step()
            except Exception as error:
                if not self._recover(error):
                    return
            self.occupancy = self._engine.occupancy()
        for job in {part.job for part in [*self._running.parts, *self._queue.items()]}:
            job.fail(unavailable(State.DRAINING))

    def _wait(self) -> bool:
        """Waits until there is something to do and obeys; returns False if it is to stop."""
        with self._changed:
            while not (self._stopping or self._cancelled or len(self._queue) or self._engine.busy):
                self._changed.wait()
            cancelled, self._cancelled = self._cancelled, []
            self._expire()
        for job in cancelled:
            self._running.drop(job)
            self._observer.cancelled(job)
        return not self._stopping

    def _expire(self) -> None:
        oldest = time.monotonic() - self._queue_seconds
        for job in {part.job for part in self._queue.items() if part.queued < oldest}:
            if not job.begun:  # else it is answered as a whole
                self._queue.remove(job.parts)
                job.fail(
                    ApiError(
                        504,
                        f"the request has waited for more than {self._queue_seconds:g} seconds: "
                        "try again later",
                        code="queue_timeout",
                    )
                )

    def _feed(self) -> None:
        """Gives the engine as many prompts as it can begin."""
        while self._running.has_room:
            with self._changed:
                if not self._queue:
                    return
                part = self._queue.pop()
                self._running.add(part)
            try:
                self._running.begin(part)
            except Exception as error:
                print_stderr("".join(traceback.format_exception(error)))
                part.job.fail(_failed(error))
                self._running.drop(part.job)
                with self._changed:
                    self._queue.remove(part.job.parts)

    def _step(self) -> None:
        for job in self._running.step():
            with self._changed:
                self._queue.remove(job.parts)
            self._observer.cancelled(job)

    def _recover(self, error: Exception) -> bool:
        """Fails all that runs and makes new slots, because a step that fails loses the old ones."""
        print_stderr("".join(traceback.format_exception(error)))
        jobs = {part.job for part in self._running.parts}
        with self._changed:
            self._queue.remove([part for job in jobs for part in job.parts])
        for job in jobs:
            job.fail(_failed(error))
        try:
            # There may be no room for the old slots beside the new ones.
            self._engine.close()
            self._running = Running(self._make_engine(), self._observer)
        except Exception as again:
            print_stderr("".join(traceback.format_exception(again)))
            self._running.parts = ()
            with self._changed:
                self._state = State.FAILED
                rest = {part.job for part in self._queue.items()}
                self._queue.remove(self._queue.items())
            for job in rest:
                job.fail(_failed(again))
            return False
        return True


def unavailable(state: State) -> ApiError:
    """Returns the error of status 503 of a worker that takes no requests."""
    reasons = {
        State.WARMING: "the server is compiling its programs: try again in a moment",
        State.DRAINING: "the server is shutting down",
        State.FAILED: "the engine has failed and could not be started again",
    }
    return ApiError(503, reasons[state], code=state.value)


def _failed(error: Exception) -> ApiError:
    reason = f"{type(error).__name__}: {' '.join(error_text(error).split())}"
    return ApiError(500, f"the engine failed: {reason[:300]}", code="engine_error")
