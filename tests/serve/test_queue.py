from __future__ import annotations

import pytest

from gpt2_jax.serve.queue import FairQueue


def test_clients_take_turns_and_each_keeps_its_order() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", ["a1", "a2", "a3"])
    queue.push("b", ["b1"])
    assert queue.pop() == "a1"
    queue.push("c", ["c1", "c2"])
    assert len(queue) == 5
    assert [queue.pop() for _ in range(5)] == ["b1", "a2", "c1", "a3", "c2"]
    assert len(queue) == 0
    with pytest.raises(KeyError):
        queue.pop()


def test_what_is_removed_leaves_the_turns_of_the_others() -> None:
    queue: FairQueue[object] = FairQueue()
    first, second, third = object(), object(), object()
    queue.push("a", [first, second])
    queue.push("b", [third])
    queue.remove([first, object()])
    queue.remove([first])
    assert queue.items() == [second, third]
    assert [queue.pop(), queue.pop()] == [second, third]
