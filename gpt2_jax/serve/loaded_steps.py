"""Keeps a few saved steps of runs in memory, and loads one when it is first asked for."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from gpt2_jax.errors import Gpt2JaxError, error_text, shortened
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.served import Limits, Served, load_served
from gpt2_jax.serve.worker import State, unavailable

T = TypeVar("T")


class LoadedSteps:
    """Holds saved steps as models; the one that was not used for longest makes room for another.

    Only the event loop may use it.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        """Starts with none.

        Args:
          limits: for each of them, and how many there may be.
          metrics: that they are counted in.
        """
        self._limits, self._metrics = limits, metrics
        self._steps: dict[str, Served] = {}  # least recently used first
        self._users: collections.Counter[str] = collections.Counter()
        self._turn = asyncio.Lock()
        self._draining = asyncio.Event()
        self._loader: threading.Thread | None = None

    @property
    def all(self) -> list[Served]:
        """Returns the steps in memory."""
        return [*self._steps.values()]

    @property
    def loading(self) -> bool:
        """Returns whether a thread loads a step, which cannot be ended."""
        return self._loader is not None and self._loader.is_alive()

    def drain(self) -> None:
        """Refuses to load from now on; requests that wait for it are answered with 503."""
        self._draining.set()

    @contextlib.asynccontextmanager
    async def using(self, name: str, folder: Path) -> AsyncIterator[Served]:
        """Gives a step, which stays in memory while the block runs.

        Args:
          name: by which requests name it.
          folder: of the step.

        Raises:
          ApiError: 503 if it cannot be loaded now.
        """
        # Counted before it is there, so that no other request makes room in between.
        self._users[name] += 1
        try:
            yield await self._unless_draining(asyncio.ensure_future(self._get(name, folder)))
        finally:
            self._users[name] -= 1
            self._users += collections.Counter()  # drops those that nobody uses

    async def _unless_draining(self, getting: asyncio.Future[Served]) -> Served:
        """Waits for a step, but not when the server is to end: a load may take minutes."""
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({getting, draining}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            raise unavailable(State.DRAINING)
        finally:
            getting.cancel()
            draining.cancel()

    async def _get(self, name: str, folder: Path) -> Served:
        if name in self._steps and self._steps[name].worker.state is State.FAILED:
            self._drop(name)
        if name not in self._steps:  # one that is there does not wait for another that loads
            async with self._turn:
                if name not in self._steps:
                    self._make_room()
                    self._steps[name] = await self._in_thread(lambda: self._load(name, folder))
        model = self._steps[name] = self._steps.pop(name)
        return model

    def _make_room(self) -> None:
        if self._draining.is_set():
            raise unavailable(State.DRAINING)
        if self._limits.steps < 1:
            raise ApiError(
                503, "no saved step can be loaded: start with --steps 1", code="steps_busy"
            )
        while len(self._steps) >= self._limits.steps:
            unused = (n for n in self._steps if not self._users[n] and self._steps[n].worker.idle)
            oldest = next(unused, None)
            if oldest is None:
                raise ApiError(
                    503,
                    f"{len(self._steps)} saved steps are in memory and in use, of at most "
                    f"{self._limits.steps}: try again later",
                    code="steps_busy",
                )
            self._drop(oldest)

    def _drop(self, name: str) -> None:
        worker = self._steps.pop(name).worker
        worker.drain()
        worker.stop()
        self._metrics.forget(name)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Runs work in a thread for which the end of the process does not wait."""
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # who waits may leave: the work goes on

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._loader = threading.Thread(target=run, name="loader", daemon=True)
        self._loader.start()
        return await asyncio.wrap_future(done)

    def _load(self, name: str, folder: Path) -> Served:
        try:
            model = load_served(name, folder, self._limits, self._metrics)
            if not self._draining.is_set():
                model.worker.start()
            while model.worker.state is State.WARMING and not self._draining.is_set():
                time.sleep(0.005)
        except Gpt2JaxError as error:
            self._metrics.forget(name)
            raise ApiError(503, error_text(error), param="model", code="step_unreadable") from None
        if model.worker.startup_error:
            # Kept, it would make the whole server look as if it had failed.
            self._metrics.forget(name)
            reason = shortened(error_text(model.worker.startup_error), 300)
            raise ApiError(
                503, f"{name} cannot start: {reason}", param="model", code="step_unreadable"
            )
        self._metrics.watch(name, model.worker)
        return model
