"""Orders what waits for the engine: first come, first served, and clients in turns."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Holds items of several clients; each client in turn gives its oldest.

    So one that has sent a hundred does not make another, which has sent one, wait for all of them.
    It is not safe for several threads by itself.
    """

    def __init__(self) -> None:
        """Starts without items."""
        self._clients: collections.OrderedDict[str, collections.deque[T]] = (
            collections.OrderedDict()
        )

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def push(self, client: str, items: Iterable[T]) -> None:
        """Adds items behind the others of a client."""
        self._clients.setdefault(client, collections.deque()).extend(items)

    def pop(self) -> T:
        """Returns the oldest item of the client whose turn it is; raises KeyError if none is."""
        client, items = self._clients.popitem(last=False)
        item = items.popleft()
        if items:
            self._clients[client] = items  # at the end: the others come first
        return item

    def items(self) -> list[T]:
        """Returns all items."""
        return [item for items in self._clients.values() for item in items]

    def remove(self, gone: Iterable[T]) -> None:
        """Removes those of the items that are in the queue."""
        leaving = {id(item) for item in gone}
        for client, items in [*self._clients.items()]:
            kept = [item for item in items if id(item) not in leaving]
            if kept:
                self._clients[client] = collections.deque(kept)
            else:
                del self._clients[client]
