"""What runs the tasks of `prepare`: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Protocol, TypeVar

from gpt2_jax.errors import UserError, shortened
from gpt2_jax.files.extras import import_extra

NAMES = ("processes", "ray")

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Calls a function for each item, in any order and in any process."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yields (index, result) as results come in; raises what the function raises."""
        ...


@contextlib.contextmanager
def open_engine(name: str, workers: int, ray_address: str | None) -> Iterator[Engine]:
    """Yields the engine of that name, and stops whatever it started at the end of the block.

    Args:
      name: one of `NAMES`.
      workers: number of processes; for a Ray started on this machine, its CPUs.
      ray_address: address of a Ray cluster; None starts Ray on this machine.

    Raises:
      UserError: for settings out of range, or a cluster that does not answer.
    """
    if workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    if name not in NAMES:
        raise UserError(f"engine must be one of {', '.join(NAMES)}, not {name!r}")
    if ray_address is not None and name != "ray":
        raise UserError("--ray_address needs --engine ray: add it, or leave the address out")
    engine = _Processes(workers) if name == "processes" else _Ray(workers, ray_address)
    with contextlib.closing(engine):
        yield engine


class _Processes:
    """Runs tasks in processes of this machine, started for the first map of several items."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None

    def map(
        self, function: Callable[[T], R], items: Sequence[T]
    ) -> Generator[tuple[int, R], None, None]:
        if self._workers == 1 or len(items) < 2:
            for index, item in enumerate(items):
                yield index, function(item)
            return
        pool = self._pool or self._start()
        pending: dict[Future[R], int] = {}
        try:
            for index, item in enumerate(items):
                with _signals_blocked():
                    pending[pool.submit(function, item)] = index
                if len(pending) >= 2 * self._workers:
                    yield from _finished(pending)
            while pending:
                yield from _finished(pending)
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, perhaps because memory ran out: try fewer --workers"
            ) from None

    def close(self) -> None:
        if self._pool is not None and self._lifeline is not None:
            self._lifeline.close()
            self._pool.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        worker_end, self._lifeline = multiprocessing.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(worker_end,),
        )
        return self._pool


def _finished(pending: dict[Future[R], int]) -> Iterator[tuple[int, R]]:
    """Waits until a task ends; yields and removes all that have ended."""
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        yield pending.pop(future), future.result()


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM until the end of the block; processes started in it ignore them.

    A terminal or a scheduler sends these signals to all processes of the run, but this process
    alone answers them: it stops the workers when it ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(lifeline: Connection) -> None:
    """Ends the worker as soon as the main process closes the pipe or ends, even by SIGKILL."""

    def watch() -> None:
        wait_for([lifeline])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Ray:
    """Runs tasks on a Ray cluster whose machines share a file system."""

    def __init__(self, workers: int, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray = ray = import_extra("ray", extra="cluster", needed_by="--engine ray")
        local: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            _check_listening(address or "")
            ray.init(
                address=address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                **(local if address is None else {}),
            )
        # Where its processes take more than 30 s to start, Ray raises a bare Exception.
        except Exception as error:
            reason = shortened(str(error), 200)
            raise UserError(f"cannot reach Ray at {address or 'this machine'}: {reason}") from None
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has replaced it by its own

    def map(
        self, function: Callable[[T], R], items: Sequence[T]
    ) -> Generator[tuple[int, R], None, None]:
        ray = self._ray
        task = ray.remote(_outcome)
        pending: dict[Any, int] = {}
        limit = max(int(2 * ray.cluster_resources().get("CPU", 1)), 2)

        def finished() -> Iterator[tuple[int, R]]:
            (first, *_), _ = ray.wait(list(pending))
            try:
                result, error = ray.get(first)
            except ray.exceptions.RayError as failure:
                reason = shortened(str(failure), 200)
                raise UserError(f"a Ray task failed: {reason}") from None
            if error is not None:
                raise error
            yield pending.pop(first), result

        for index, item in enumerate(items):
            pending[task.remote(function, item)] = index
            if len(pending) >= limit:
                yield from finished()
        while pending:
            yield from finished()

    def close(self) -> None:
        self._ray.shutdown()


def _check_listening(address: str) -> None:
    """Raises OSError if nothing listens at `[ray://]HOST:PORT`; Ray would retry for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _outcome(function: Callable[[T], R], item: T) -> tuple[R | None, Exception | None]:
    """Returns (result, None) or (None, error), because Ray wraps errors in its own traceback."""
    try:
        return function(item), None
    except (UserError, OSError) as error:
        return None, error
