"""Who runs the tasks of `prepare`: this process, processes of this machine, or a Ray cluster."""

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
from gpt2_jax.prepare.pieces import extra

NAMES = ("processes", "ray")

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Calls a function of one argument for each item, in any order, anywhere."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """(index, result) as results come in; what the function raises is raised here."""
        ...


@contextlib.contextmanager
def open_engine(name: str, workers: int, ray_address: str | None) -> Iterator[Engine]:
    """The engine of that name; at the end, whatever it started is gone.

    Args:
      workers: processes; for Ray on this machine alone, its CPUs.
      ray_address: the cluster's; None starts Ray here.

    Raises:
      UserError: for settings out of range, or a cluster that is not there.
    """
    if workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    if name not in NAMES:
        raise UserError(f"engine must be one of {', '.join(NAMES)}, not {name!r}")
    if ray_address is not None and name != "ray":
        raise UserError("--ray_address goes with --engine ray")
    engine = _Processes(workers) if name == "processes" else _Ray(workers, ray_address)
    with contextlib.closing(engine):
        yield engine


class _Processes:
    """Processes of this machine, started when there is more than one thing to do."""

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
        under_way: dict[Future[R], int] = {}
        try:
            for index, item in enumerate(items):
                with _signals_held():
                    under_way[pool.submit(function, item)] = index
                if len(under_way) >= 2 * self._workers:
                    yield from _finished(under_way)
            while under_way:
                yield from _finished(under_way)
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, perhaps for lack of memory: try fewer --workers"
            ) from None

    def close(self) -> None:
        if self._pool is not None and self._lifeline is not None:
            self._lifeline.close()
            self._pool.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        theirs, self._lifeline = multiprocessing.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(theirs,),
        )
        return self._pool


def _finished(under_way: dict[Future[R], int]) -> Iterator[tuple[int, R]]:
    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
    for future in done:
        yield under_way.pop(future), future.result()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block; processes it starts never see them.

    A terminal or a scheduler sends them to all; this process ends the others when it ends.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _start_worker(lifeline: Connection) -> None:
    """Ends the worker at once when nobody holds the other end, even after a SIGKILL."""

    def watch() -> None:
        wait_for([lifeline])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Ray:
    """Tasks of a Ray cluster whose machines share the file system."""

    def __init__(self, workers: int, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray = ray = extra("cluster", "ray", "--engine ray")
        here: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
        answer = signal.getsignal(signal.SIGTERM)
        try:
            _knock(address or "")
            ray.init(
                address=address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                **(here if address is None else {}),
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = shortened(str(error), 200)
            raise UserError(f"cannot reach Ray at {address or 'this machine'}: {reason}") from None
        if callable(answer) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, answer)  # Ray has put its own in place of it

    def map(
        self, function: Callable[[T], R], items: Sequence[T]
    ) -> Generator[tuple[int, R], None, None]:
        ray = self._ray
        task = ray.remote(_outcome)
        under_way: dict[Any, int] = {}
        most = max(int(2 * ray.cluster_resources().get("CPU", 1)), 2)

        def finished() -> Iterator[tuple[int, R]]:
            (first, *_), _ = ray.wait(list(under_way))
            try:
                result, error = ray.get(first)
            except ray.exceptions.RayError as failure:
                reason = shortened(str(failure), 200)
                raise UserError(f"a task of Ray failed: {reason}") from None
            if error is not None:
                raise error
            yield under_way.pop(first), result

        for index, item in enumerate(items):
            under_way[task.remote(function, item)] = index
            if len(under_way) >= most:
                yield from finished()
        while under_way:
            yield from finished()

    def close(self) -> None:
        self._ray.shutdown()


def _knock(address: str) -> None:
    """OSError if nobody listens at `[ray://]HOST:PORT`: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _outcome(function: Callable[[T], R], item: T) -> tuple[R | None, Exception | None]:
    """(result, None) or (None, error): Ray would wrap the error in its own traceback."""
    try:
        return function(item), None
    except (UserError, OSError) as error:
        return None, error
