"""Groups continuations of the same context, so that the context is computed only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gpt2_jax.inference.batching import Request

_MAX_CONTINUATIONS = 8  # in one request, because each holds a copy of the context's cache


def group_by_context(
    pairs: Iterable[tuple[tuple[int, ...], tuple[int, ...]]],
) -> Iterator[tuple[Request, list[int]]]:
    """Yields (request, positions of its continuations among the pairs).

    Neighbors with the same context share a request, unless the context is a single token, which
    has no cache to share.

    Args:
      pairs: (context, continuation) as token ids.
    """
    context, positions, continuations = (), [], []
    for position, (next_context, continuation) in enumerate(pairs):
        full = len(positions) == _MAX_CONTINUATIONS
        if positions and (next_context != context or len(context) == 1 or full):
            yield Request(context, tuple(continuations)), positions
            positions, continuations = [], []
        context = next_context
        positions.append(position)
        continuations.append(continuation)
    if positions:
        yield Request(context, tuple(continuations)), positions
