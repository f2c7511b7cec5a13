from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.lines import HEADER


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A config file that changes nothing."""
    path = tmp_path / "plain.py"
    path.write_text(HEADER + "    return c\n", encoding="utf-8")
    return path
