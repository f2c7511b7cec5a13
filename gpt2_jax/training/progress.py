"""The progress of a run on standard error: a bar on a terminal, and lines otherwise."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

Value = float | int | str


class Progress:
    """Shows a progress bar on a terminal, and plain lines if standard error is a file or a pipe.

    Use it as a context manager, which restores the terminal, after an exception too.
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
            # Redrawn on update and not by a thread, because steps on a CPU need the cores.
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
        """Shows a step, with the loss, learning rate, gradient norm and throughput of `values`."""
        if not self._enabled:
            return
        now = self._clock()
        # Steps are timed from the first one shown, which may have included compilation.
        self._first = self._first or (step, now)
        words = [format_(values[name]) for name, format_ in _SHOWN.items() if name in values]
        done, seconds = step - self._first[0], now - self._first[1]
        if done > 0 and step < self._total:
            words.append(f"eta {duration((self._total - step) * seconds / done)}")
        if self._bar is None:
            self._print("  ".join([f"step {step}/{self._total}", *words]))
            return
        with contextlib.suppress(OSError):
            self._bar.update(self._task, completed=step, description="  ".join(words), refresh=True)

    def message(self, text: str) -> None:
        """Prints a line that stays, above the bar if there is one."""
        if self._enabled:
            self._print(text)

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk, or a pipe that nobody reads any more
            self._console.print(text, markup=False)


def duration(seconds: float) -> str:
    """Returns a duration as people write it: `45s`, `1m20s`, `3h05m`, `2d04h`."""
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
    """Returns a number with four decimals, or four digits if it is large: `1.3991`, `3.142e+09`."""
    return f"{number:.4f}" if abs(number) < 1e6 else f"{number:.3e}"


def quantity(number: float) -> str:
    """Returns a number with three digits and a unit: `985`, `12.3K`, `1.57M`."""
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
