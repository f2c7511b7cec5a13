"""Groups requests into batches of few shapes, so that few programs are compiled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gpt2_jax.errors import UserError


class Request(NamedTuple):
    """Holds a context, which is not empty, and its continuations, as token ids."""

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]


class Shape(NamedTuple):
    """Holds the sizes that a request is padded to.

    Attributes:
      fan: number of continuations.
      chunk: tokens of each continuation.
      prefix: tokens of the context without its last, which begins each chunk.
    """

    fan: int
    chunk: int
    prefix: int

    @property
    def tokens(self) -> int:
        """Returns the tokens of one request, padding included."""
        return self.prefix + self.fan * self.chunk

    @property
    def slots(self) -> int:
        """Returns the cache slots of one request, whose continuations have a copy of it each."""
        return self.fan * (self.prefix + self.chunk) if self.prefix else 0

    def covering(self, other: Shape) -> Shape:
        """Returns the smallest shape that has room for both."""
        return Shape(self.fan, max(self.chunk, other.chunk), max(self.prefix, other.prefix))


class Budget(NamedTuple):
    """Limits the size of a batch.

    Attributes:
      tokens: the most tokens, padding included.
      slots: the most slots of all caches together.
      shards: parts that a batch is divided into; its rows are a multiple of them.
    """

    tokens: int
    slots: int
    shards: int = 1


class Piece(NamedTuple):
    """Holds a request, or one of its continuations if each needs a context of its own.

    Attributes:
      index: index of the request.
      numbers: indices of the continuations within the request.
      context, continuations: token ids; context and any continuation fit the model together.
    """

    index: int
    numbers: tuple[int, ...]
    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> Shape:
        """Returns the sizes that it is padded to by itself."""
        longest = max(map(len, self.continuations))
        chunk, prefix = _bucket(max(1, longest)), _bucket(len(self.context) - 1)
        return Shape(len(self.continuations), chunk, prefix)


def split_requests(requests: Sequence[Request], context_length: int) -> Iterator[Piece]:
    """Yields every request as one piece, or as one per continuation if their contexts differ.

    If a continuation does not fit behind its context, the context loses its beginning, for each
    continuation separately (lm-eval's convention).

    Args:
      requests: what to score.
      context_length: the model's context.

    Raises:
      UserError: for a continuation longer than the context.
    """
    for index, request in enumerate(requests):
        longest = max(map(len, request.continuations))
        if longest > context_length:
            raise UserError(
                f"a text to score has {longest} tokens, more than the model's context of "
                f"{context_length}"
            )
        numbers = tuple(range(len(request.continuations)))
        if len(request.context) + longest <= context_length + 1:
            yield Piece(index, numbers, request.context, request.continuations)
            continue
        for number, continuation in zip(numbers, request.continuations, strict=True):
            context = request.context[-(context_length + 1 - len(continuation)) :]
            yield Piece(index, (number,), context, (continuation,))


def _bucket(length: int) -> int:
    """Returns the padded length: a multiple of 8, or of an eighth to a quarter of it; 0 for 0."""
    if length <= 0:
        return 0
    step = max(8, 2 ** (math.ceil(math.log2(length)) - 2))
    return -(-length // step) * step


def _batch_rows(count: int, shape: Shape, budget: Budget) -> int:
    """Returns the rows of a batch: a power of two per shard, within the budget and the count."""
    shards = budget.shards
    fitting = min(budget.tokens // shape.tokens, budget.slots // max(1, shape.slots))
    most = max(1, fitting // shards)
    needed = -(-count // shards)
    return shards * min(2 ** int(math.log2(most)), 2 ** math.ceil(math.log2(needed)))


def make_batches(
    pieces: Sequence[Piece], budget: Budget
) -> Iterator[tuple[Shape, int, list[Piece]]]:
    """Yields (shape, rows, pieces that fill them), the largest shapes first.

    So a program that does not fit the memory fails at once. The last batch of a shape is padded
    like the others.
    """
    by_shape = _merge_shapes(pieces, budget.tokens)
    for shape in sorted(by_shape, key=lambda shape: (-shape.tokens, shape)):
        of_shape = by_shape[shape]
        rows = _batch_rows(len(of_shape), shape, budget)
        for start in range(0, len(of_shape), rows):
            yield shape, rows, of_shape[start : start + rows]


def _merge_shapes(pieces: Sequence[Piece], least: int) -> dict[Shape, list[Piece]]:
    """Returns pieces by shape; shapes of fewer than `least` tokens join another one.

    Padding so few tokens costs less than compiling a program for them. From the smallest shape on,
    each joins the one with which it then needs the fewest tokens.
    """
    by_shape: dict[Shape, list[Piece]] = {}
    for piece in pieces:
        by_shape.setdefault(piece.shape, []).append(piece)

    def partners(shape: Shape) -> list[Shape]:
        return [other for other in by_shape if other.fan == shape.fan and other != shape]

    def cost(shape: Shape, other: Shape) -> int:
        both, count = shape.covering(other), len(by_shape[other])
        return both.tokens * (len(by_shape[shape]) + count) - other.tokens * count

    while True:
        small = [s for s in by_shape if len(by_shape[s]) * s.tokens < least and partners(s)]
        if not small:
            return by_shape
        shape = min(small, key=lambda s: (s.tokens, s))
        partner = min(partners(shape), key=lambda other: (cost(shape, other), other))
        joined = by_shape.pop(shape) + by_shape.pop(partner)
        by_shape.setdefault(shape.covering(partner), []).extend(joined)
