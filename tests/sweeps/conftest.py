"""A folder to run sweeps in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweeps.sweeping import House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.chdir(tmp_path)
    return House(tmp_path)
