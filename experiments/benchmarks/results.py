"""The file of a suite's results, which keeps every finished measurement."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Results:
    """Holds the results of a suite and writes them after every case."""

    def __init__(self, path: Path) -> None:
        """Reads the file if it exists."""
        self.path = path
        self.content: dict[str, Any] = {"cases": {}}
        if path.exists():
            self.content = json.loads(path.read_text("utf-8"))

    @property
    def cases(self) -> dict[str, Any]:
        """Returns the records by the names of their cases."""
        return self.content["cases"]

    def is_done(self, name: str, stamp: dict[str, Any]) -> bool:
        """Returns whether a case was measured so, without failures and with results that agree."""
        record = self.cases.get(name)
        if record is None or record["stamp"] != stamp:
            return False
        agreed = all(record.get("agreement", {"passed": {}})["passed"].values())
        return agreed and not any("failure" in each for each in record["subjects"].values())

    def add(self, name: str, record: dict[str, Any], order: list[str]) -> None:
        """Adds a record and writes the file: first the cases of `order`, in that order."""
        self.cases[name] = record
        others = [case for case in self.cases if case not in order]
        kept = [case for case in [*order, *others] if case in self.cases]
        self.content["cases"] = {case: self.cases[case] for case in kept}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n", "utf-8")
        os.replace(temporary, self.path)
