"""How fast a run trains: tokens per second and model FLOPs utilization (MFU)."""

from __future__ import annotations

import time
from collections.abc import Callable

from gpt2_jax.training.goodput import Goodput


class Throughput:
    """Measures tokens per second and MFU between two calls, without the pauses."""

    def __init__(
        self,
        tokens_per_step: int,
        flops_per_token: float,
        peak_flops: float | None,
        goodput: Goodput,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Sets the rates.

        Args:
          tokens_per_step: tokens of one optimizer step over all devices.
          flops_per_token: FLOPs of the forward and backward pass.
          peak_flops: FLOP/s of all devices together; None if unknown, and then there is no `mfu`.
          goodput: counts the seconds of pauses, such as validations and saves.
          clock: returns seconds and never goes back.
        """
        self._tokens_per_step, self._flops_per_token = tokens_per_step, flops_per_token
        self._peak_flops, self._goodput, self._clock = peak_flops, goodput, clock
        self._last: tuple[int, float, float] | None = None  # step, time, seconds paused by then

    def measure(self, step: int) -> dict[str, float]:
        """Returns `tokens_per_second` and, if the peak is known, `mfu` (0 to 1).

        Both are averages since the last call. The first call returns nothing, because the steps
        before it include compilation, and neither does a second call for the same step.
        """
        rates: dict[str, float] = {}
        now, paused = self._clock(), self._goodput.paused
        if self._last is not None:
            last_step, last_time, last_paused = self._last
            seconds = now - last_time - (paused - last_paused)
            tokens = (step - last_step) * self._tokens_per_step
            if seconds > 0 and tokens > 0:
                rates["tokens_per_second"] = tokens / seconds
                if self._peak_flops:
                    rates["mfu"] = tokens / seconds * self._flops_per_token / self._peak_flops
        self._last = (step, now, paused)
        return rates
