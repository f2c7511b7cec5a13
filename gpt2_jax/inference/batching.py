"""Which requests are scored together: batches of few shapes, so that few programs are compiled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gpt2_jax.errors import UserError


class Request(NamedTuple):
    """A context, which is not empty, and its continuations, as token ids."""

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]


class Shape(NamedTuple):
    """Sizes a request is padded to.

    Attributes:
      fan: continuations.
      chunk: tokens of each.
      prefix: tokens of the context but its last, which begins each chunk.
    """

    fan: int
    chunk: int
    prefix: int

    @property
    def tokens(self) -> int:
        """Of one request, padding included."""
        return self.prefix + self.fan * self.chunk

    @property
    def slots(self) -> int:
        """Of the cache of one request, of which each continuation has a copy."""
        return self.fan * (self.prefix + self.chunk) if self.prefix else 0

    def covering(self, other: Shape) -> Shape:
        """The least shape that has room for both."""
        return Shape(self.fan, max(self.chunk, other.chunk), max(self.prefix, other.prefix))


class Budget(NamedTuple):
    """What a batch may have at most.

    Attributes:
      tokens: padding included.
      slots: of the caches.
      shards: parts a batch is cut into: its rows are a multiple of these.
    """

    tokens: int
    slots: int
    shards: int = 1


class Piece(NamedTuple):
    """A request, or one of its continuations where each needs a context of its own.

    Attributes:
      index: of the request.
      numbers: of the continuations, within the request.
      context, continuations: token ids; context and any continuation fit the model together.
    """

    index: int
    numbers: tuple[int, ...]
    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> Shape:
        """The sizes it is padded to by itself."""
        longest = max(map(len, self.continuations))
        chunk, prefix = _bucket(max(1, longest)), _bucket(len(self.context) - 1)
        return Shape(len(self.continuations), chunk, prefix)


def pieces(requests: Sequence[Request], room: int) -> Iterator[Piece]:
    """Every request as one piece, or as one per continuation where they need different contexts.

    A context loses its beginning where a continuation would not fit behind it, each continuation
    by itself (lm-eval's convention).

    Args:
      room: the model's context.

    Raises:
      UserError: for a continuation longer than that.
    """
    for index, request in enumerate(requests):
        longest = max(map(len, request.continuations))
        if longest > room:
            raise UserError(
                f"a text to score has {longest} tokens, more than the model's context of {room}"
            )
        numbers = tuple(range(len(request.continuations)))
        if len(request.context) + longest <= room + 1:
            yield Piece(index, numbers, request.context, request.continuations)
            continue
        for number, continuation in zip(numbers, request.continuations, strict=True):
            context = request.context[-(room + 1 - len(continuation)) :]
            yield Piece(index, (number,), context, (continuation,))


def _bucket(length: int) -> int:
    """The length to pad to: multiples of an eighth to a quarter of it, from 8 on; 0 stays 0."""
    if length <= 0:
        return 0
    step = max(8, 2 ** (math.ceil(math.log2(length)) - 2))
    return -(-length // step) * step


def _rows(count: int, shape: Shape, budget: Budget) -> int:
    """Rows of a batch: a power of two a shard, no more than `count` needs or the budget has."""
    shards = budget.shards
    fitting = min(budget.tokens // shape.tokens, budget.slots // max(1, shape.slots))
    most = max(1, fitting // shards)
    needed = -(-count // shards)
    return shards * min(2 ** int(math.log2(most)), 2 ** math.ceil(math.log2(needed)))


def batches(cut: Sequence[Piece], budget: Budget) -> Iterator[tuple[Shape, int, list[Piece]]]:
    """(shape, rows, pieces that fill them): largest shapes first, so that what does not fit fails.

    The last batch of a shape is padded like the others.
    """
    by_shape = _merged(cut, budget.tokens)
    for shape in sorted(by_shape, key=lambda shape: (-shape.tokens, shape)):
        alike = by_shape[shape]
        rows = _rows(len(alike), shape, budget)
        for start in range(0, len(alike), rows):
            yield shape, rows, alike[start : start + rows]


def _merged(pieces: Sequence[Piece], least: int) -> dict[Shape, list[Piece]]:
    """Pieces by shape; shapes of fewer than `least` tokens join a larger one: a program costs more.

    From the smallest on, each joins the shape that the two of them then need least tokens in.
    """
    found: dict[Shape, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.shape, []).append(piece)

    def partners(shape: Shape) -> list[Shape]:
        return [other for other in found if other.fan == shape.fan and other != shape]

    def cost(shape: Shape, other: Shape) -> int:
        both, count = shape.covering(other), len(found[other])
        return both.tokens * (len(found[shape]) + count) - other.tokens * count

    while True:
        small = [s for s in found if len(found[s]) * s.tokens < least and partners(s)]
        if not small:
            return found
        shape = min(small, key=lambda s: (s.tokens, s))
        partner = min(partners(shape), key=lambda other: (cost(shape, other), other))
        joined = found.pop(shape) + found.pop(partner)
        found.setdefault(shape.covering(partner), []).extend(joined)
