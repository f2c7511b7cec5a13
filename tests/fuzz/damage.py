"""Damages files: bytes are changed or cut off, and JSON gets other values."""

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

from tests.fuzz.commands import refusal_or_success, snapshot

# Replacements for values in a JSON file; most of them parse.
_TEXTS = (
    *("null", "true", "false", "0", "1", "-1", "2", "0.5", "-0.0", "1e400", "NaN", "-Infinity"),
    *("16", "61", "256", "300", "50257", "2147483647", "2147483648", "1000000000000", "9" * 30),
    *("9" * 400, "9" * 5000, '""', '"a"', '"\\ud800"', '"\\u0000"', '"../x"', '"a\\nb"', '"\xe9"'),
    *("[]", "[0]", "[null]", "[[]]", "{}", '{"a": 1}', '{"": {}}', '["a", "b"]', "[1, 2, 3]", ""),
    *('"' + "x" * 10**5 + '"', "[" + "0," * 10**5 + "0]", "[" * 10**5, "[" * 10**5 + "]" * 10**5),
    *("[" * 800 + "]" * 800, '{"a":' * 10**5, "1 2", "'a'", "\\"),
)  # fmt: skip


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Returns the content with some bytes changed, removed or inserted, or its end cut off."""
    positions = st.integers(0, len(content))
    change = st.tuples(positions, st.integers(0, 8), st.binary(max_size=8))
    changes = st.lists(change, min_size=1, max_size=4).map(lambda some: _spliced(content, some))
    return changes | positions.map(lambda end: content[:end]) | st.binary(max_size=64)


def _spliced(content: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, count, put in changes:
        content = content[:at] + put + content[at + count :]
    return content


@st.composite
def other_json(draw: Any, value: Any) -> bytes:
    """Returns a JSON document with some values replaced, removed, renamed or duplicated."""
    root = [copy.deepcopy(value)]
    put: dict[str, str] = {}
    for number in range(draw(st.integers(1, 3))):
        container, key = _choose_value(draw, root)
        mark = f"mark {number}"
        change = draw(st.sampled_from(["put", "put", "put", "drop", "twice", "rename", "move"]))
        if change == "put" or container is root:
            container[key] = mark
            put[mark] = draw(st.sampled_from(_TEXTS))
        elif change == "drop":
            del container[key]
        elif change == "move":
            source, source_key = _choose_value(draw, root)
            container[key] = copy.deepcopy(source[source_key])
        elif isinstance(container, dict):
            container[mark] = mark + "'s value" if change == "twice" else container.pop(key)
            put[mark] = json.dumps(key if change == "twice" else draw(st.text(max_size=3)))
            put[mark + "'s value"] = draw(st.sampled_from(_TEXTS))
    text = json.dumps(root[0])
    for mark, replacement in put.items():
        text = text.replace(json.dumps(mark), replacement)
    return text.encode()


def _choose_value(draw: Any, root: list[Any]) -> tuple[Any, Any]:
    """Returns (container, key or index) of a value, as often near the top as deep inside."""
    container, key = root, 0
    while isinstance(container[key], (dict, list)) and container[key] and draw(st.integers(0, 3)):
        container = container[key]
        keys = list(container) if isinstance(container, dict) else range(len(container))
        key = draw(st.sampled_from(keys))
    return container, key


def ends_well(path: Path, content: bytes, read: Callable[[], Any]) -> None:
    """Replaces a file, which must then be refused, or be read without much memory."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        files = snapshot(path.parent)
        with _little_memory(), refusal_or_success():
            read()
        assert snapshot(path.parent) == files
    finally:
        path.write_bytes(before)


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    """Limits the memory to what XLA may need, so that sizes which a file lies about fail."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    now = int(statm.read_text().split()[0]) * resource.getpagesize()
    spare = (2 << 30) + (os.cpu_count() or 1) * (256 << 20)  # each thread of XLA has an arena
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
