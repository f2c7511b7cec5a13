"""What a run shows of itself on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from gpt2_jax.train.metrics import Value


class Progress:
    """A progress bar on a terminal, and plain lines where standard error is a file or a pipe.

    Use it as a context manager: leaving it, by an exception too, gives the terminal back.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        *,
        enabled: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepares the display; `enabled=False` (every process but the first) shows nothing."""
        self._total = total_steps
        self._enabled = enabled
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._bar: RichProgress | None = None
        if enabled and self._console.is_terminal:
            # Redrawn when there is news, not by a thread: steps on a CPU need the cores.
            self._bar = RichProgress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
            )
            self._task = self._bar.add_task("", total=total_steps, completed=start_step)

    def __enter__(self) -> Progress:
        """Shows the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, values: Mapping[str, Value]) -> None:
        """Shows a step: of `values` the loss, learning rate, gradient norm and throughput."""
        if not self._enabled:
            return
        now = self._clock()
        # The first step shown may have compiled: the pace is measured from it on.
        self._first = self._first or (step, now)
        parts = [text(values[name]) for name, text in _SHOWN.items() if name in values]
        done, seconds = step - self._first[0], now - self._first[1]
        if done > 0 and step < self._total:
            parts.append(f"eta {duration((self._total - step) * seconds / done)}")
        if self._bar is None:
            self._print("  ".join([f"step {step}/{self._total}", *parts]))
            return
        with contextlib.suppress(OSError):
            self._bar.update(self._task, completed=step, description="  ".join(parts), refresh=True)

    def message(self, text: str) -> None:
        """Prints a line that stays, above the bar if there is one."""
        if self._enabled:
            self._print(text)

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # on a full disk, or a pipe that nobody reads any more
            self._console.print(text, markup=False)


def duration(seconds: float) -> str:
    """Time left as a reader says it: `45s`, `1m20s`, `3h05m`, `2d04h`."""
    whole = round(seconds)
    for size, unit, smaller, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02d}{small}"
    return f"{whole}s"


def decimals(number: float) -> str:
    """Four places, or four digits of what is very large: `1.3991`, `3.142e+09`."""
    return f"{number:.4f}" if abs(number) < 1e6 else f"{number:.3e}"


def quantity(number: float) -> str:
    """Three digits and a unit: `985`, `12.3K`, `1.57M`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{float(f'{number / size:.3g}'):g}{unit}"
    return f"{float(f'{number:.3g}'):g}"


_SHOWN: dict[str, Callable[[Any], str]] = {
    "loss": lambda value: f"loss {value:.3f}",
    "learning_rate": lambda value: f"lr {value:.1e}",
    "grad_norm": lambda value: f"grad_norm {value:.2f}",
    "tokens_per_second": lambda value: f"{quantity(value)} tokens/s",
    "mfu": lambda value: f"mfu {value:.1%}",
}
