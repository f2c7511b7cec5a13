"""Runs the explorer's programs on texts of the common lengths, before somebody waits for them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator

from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.run import Run
from gpt2_jax.interpret.views import views_of
from gpt2_jax.serve.insights import Insights
from gpt2_jax.serve.served import Served

LENGTHS = (16, 32, 64, 128)
"""Tokens of texts: those between share their programs, and longer ones are compiled when needed."""


def warm_pieces(models: Iterable[Served], insights: Insights) -> Iterator[Callable[[], object]]:
    """Yields pieces of work, each one program or a few, shorter texts first.

    Of models that the explorer would need a second copy of there are none.
    """
    chosen = [model for model in models if insights.subjects.is_shared(model)]
    for length in LENGTHS:
        for model in chosen:
            longest = insights.longest(model)
            if length == LENGTHS[0] or length <= longest:
                yield from _of_text(model, min(length, longest), insights)


def _of_text(model: Served, length: int, insights: Insights) -> Iterator[Callable[[], object]]:
    made: list[Inspection] = []

    def run() -> None:
        made.append(Inspection(Run(insights.subjects.get(model.name).subject, [0] * length)))

    yield run
    yield lambda: made[0].summary()
    for view in views_of(model.config.model):
        # Norms are counted from 1, all else from 0.
        address = re.sub(r"\{\w+\}", "0", view.address.replace("{which}", "1"))
        yield functools.partial(made[0].__getitem__, address)
