"""Files that are not what they should be: bytes flipped or cut, JSON with other values in it."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.commands import contents, refusal_or_success

# What may stand in a file of JSON where something else should: most of it parses.
_TEXTS = (
    *("null", "true", "false", "0", "1", "-1", "2", "0.5", "-0.0", "1e400", "NaN", "-Infinity"),
    *("16", "61", "256", "300", "50257", "2147483647", "2147483648", "1000000000000", "9" * 30),
    *("9" * 400, "9" * 5000, '""', '"a"', '"\\ud800"', '"\\u0000"', '"../x"', '"a\\nb"', '"\xe9"'),
    *("[]", "[0]", "[null]", "[[]]", "{}", '{"a": 1}', '{"": {}}', '["a", "b"]', "[1, 2, 3]", ""),
    *('"' + "x" * 10**5 + '"', "[" + "0," * 10**5 + "0]", "[" * 10**5, "[" * 10**5 + "]" * 10**5),
    *("[" * 800 + "]" * 800, '{"a":' * 10**5, "1 2", "'a'", "\\"),
)  # fmt: skip


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The content with a few bytes changed, taken out or put in, or its end cut off."""
    places = st.integers(0, len(content))
    change = st.tuples(places, st.integers(0, 8), st.binary(max_size=8))
    changes = st.lists(change, min_size=1, max_size=4).map(lambda some: _spliced(content, some))
    return changes | places.map(lambda end: content[:end]) | st.binary(max_size=64)


def _spliced(content: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, count, put in changes:
        content = content[:at] + put + content[at + count :]
    return content


@st.composite
def other_json(draw: Any, value: Any) -> bytes:
    """A document of JSON, with some of its parts replaced, taken out, or there twice."""
    root = [copy.deepcopy(value)]
    put: dict[str, str] = {}
    for number in range(draw(st.integers(1, 3))):
        holder, key = _place(draw, root)
        mark = f"mark {number}"
        change = draw(st.sampled_from(["put", "put", "put", "drop", "twice", "rename", "move"]))
        if change == "put" or holder is root:
            holder[key] = mark
            put[mark] = draw(st.sampled_from(_TEXTS))
        elif change == "drop":
            del holder[key]
        elif change == "move":
            other, there = _place(draw, root)
            holder[key] = copy.deepcopy(other[there])
        elif isinstance(holder, dict):
            holder[mark] = mark + "'s value" if change == "twice" else holder.pop(key)
            put[mark] = json.dumps(key if change == "twice" else draw(st.text(max_size=3)))
            put[mark + "'s value"] = draw(st.sampled_from(_TEXTS))
    text = json.dumps(root[0])
    for mark, instead in put.items():
        text = text.replace(json.dumps(mark), instead)
    return text.encode()


def _place(draw: Any, root: list[Any]) -> tuple[Any, Any]:
    """(container, key or index): as often at the top as deep down, where most things are."""
    holder, key = root, 0
    while isinstance(holder[key], (dict, list)) and holder[key] and draw(st.integers(0, 3)):
        holder = holder[key]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = draw(st.sampled_from(keys))
    return holder, key


def ends_well(path: Path, content: bytes, read: Callable[[], Any]) -> None:
    """Reads with another content of a file, which is refused, or read without much memory."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        there = contents(path.parent)
        with _little_memory(), refusal_or_success():
            read()
        assert contents(path.parent) == there
    finally:
        path.write_bytes(before)


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    """No more than XLA may need beside what there is: what a file lies about can't be had."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    now = int(statm.read_text().split()[0]) * resource.getpagesize()
    spare = (2 << 30) + (os.cpu_count() or 1) * (256 << 20)  # each of its threads has an arena
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
