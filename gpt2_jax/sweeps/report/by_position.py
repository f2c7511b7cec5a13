"""The loss at each position of the context, averaged over the seeds of an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gpt2_jax.sweeps.folder import DONE
from gpt2_jax.sweeps.report.curves import Band
from gpt2_jax.sweeps.report.outcomes import Outcome
from gpt2_jax.sweeps.report.position_bins import binned, bins
from gpt2_jax.sweeps.statistics.differences import mean


def position_bands(arms: Mapping[str, Sequence[Outcome]]) -> list[Band]:
    """Returns the mean loss of each arm by the position, with 95 % intervals over its seeds.

    Only points that are done and have as many positions as the first of their arm count; x is the
    geometric mean of the positions at the ends of a bin. An arm without any is left out.
    """
    found = []
    for arm, points in arms.items():
        all_losses = [p.loss_by_position for p in points if p.state == DONE and p.loss_by_position]
        curves = [binned(each) for each in all_losses if len(each) == len(all_losses[0])]
        if not curves:
            continue
        test = mean(np.stack(curves, axis=-1))
        low, high = test.interval() if len(curves) > 1 else (test.estimate, test.estimate)
        x = np.array([np.sqrt(first * last) for first, last in bins(len(all_losses[0]))])
        found.append(Band(arm, x, test.estimate, low, high, len(curves)))
    return found
