from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from gpt2_jax.training.progress import Progress, duration, quantity


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _shown(terminal: bool, **settings: Any) -> str:
    file, clock = io.StringIO(), _Clock()
    console = Console(file=file, force_terminal=terminal, width=120, highlight=False)
    with Progress(2000, console=console, clock=clock, **settings) as progress:
        for step in (50, 100):
            clock.now += 5
            values = {"learning_rate": 6e-4, "grad_norm": 0.853, "tokens_per_second": 12345.6}
            progress.update(step, {"loss": 2.3451, **values, "ignored": 1})
        progress.message("validation [val] loss 2.400")
    return file.getvalue()


def test_a_pipe_gets_plain_lines() -> None:
    line = "step 100/2000  loss 2.345  lr 6.0e-04  grad_norm 0.85  12.3K tokens/s  eta 3m10s"
    assert _shown(False).splitlines()[1:] == [line, "validation [val] loss 2.400"]


def test_a_terminal_gets_a_bar_with_messages_above() -> None:
    shown = _shown(True)
    assert "loss 2.345  lr 6.0e-04" in shown
    assert "━" in shown
    assert "validation [val] loss 2.400\n" in shown
    assert shown.count("\x1b[?25h") == 1  # the cursor is back


def test_a_process_that_is_not_the_first_shows_nothing() -> None:
    assert _shown(False, enabled=False) == _shown(True, enabled=False) == ""


def test_units() -> None:
    seconds = [0.4, 59.7, 80, 3600, 11100, 187200]
    assert [duration(s) for s in seconds] == ["0s", "1m00s", "1m20s", "1h00m", "3h05m", "2d04h"]
    numbers = [0.5, 985, 999.7, 12345, 1.57e6, 2e9]
    assert [quantity(n) for n in numbers] == ["0.5", "985", "1000", "12.3K", "1.57M", "2B"]
