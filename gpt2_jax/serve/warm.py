"""Compiles every program of an engine before the first request, and counts what is compiled later.

A program that is compiled while texts grow would make all of them wait for seconds.
"""

from __future__ import annotations

import threading
from typing import Any

import jax

from gpt2_jax.inference.engine import Engine
from gpt2_jax.inference.prefill import CHUNKS
from gpt2_jax.inference.requests import Request
from gpt2_jax.inference.sampling import SamplingOptions

# Beside XLA's own time it has that of looking into the cache: a program that is loaded counts too.
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """Counts the programs that one thread compiles or loads.

    Attributes:
      count: how many there were since `reset`.
      names: of the last of them.
    """

    def __init__(self) -> None:
        """Counts nothing yet."""
        self.count = 0
        self.names: list[str] = []
        self._thread: int | None = None

    def listen_to_this_thread(self) -> None:
        """Begins to count what the calling thread compiles."""
        self._thread = threading.get_ident()
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)

    def close(self) -> None:
        """Ends counting."""
        jax.monitoring.unregister_event_duration_listener(self._on_duration)

    def reset(self) -> None:
        """Counts from zero again."""
        self.count = 0

    def _on_duration(self, event: str, duration_secs: float, **details: Any) -> None:
        if event == _COMPILED and threading.get_ident() == self._thread:
            self.count += 1
            self.names = [*self.names[-9:], str(details.get("fun_name"))]


def warm_start(engine: Engine) -> None:
    """Runs requests that between them use every program of the engine, and are thrown away."""
    longest = engine.max_length
    options = SamplingOptions(temperature=0.0)
    # A prompt's last token is in no chunk. The longest prompt has room for no further token.
    sizes = {max(1, min(size + 1, longest - 1)) for size in CHUNKS}
    for size in sorted(sizes):
        for logprobs in (False, True):
            _run(
                engine, Request([0] * size, 1, options, logprobs=logprobs, prompt_logprobs=logprobs)
            )
    _run(engine, Request([0] * longest, 0, options, prompt_logprobs=True))
    if longest > 2:
        _run(engine, Request([0] * (longest - 1), 3, options, slide=True))


def _run(engine: Engine, request: Request) -> None:
    engine.submit(request)
    while engine.busy:
        engine.step()
