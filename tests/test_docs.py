"""Tests that what the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).parents[1]


def test_every_test_that_the_page_on_reliability_names_exists():
    page = (_ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in page.splitlines() if re.match(r"\| \d+ \|", line))
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", table)
    assert len(named) > 40
    for path, name in named:
        content = (_ROOT / "tests" / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in content, f"{path}::{name}"
