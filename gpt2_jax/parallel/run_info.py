"""Notes of what a run's process ran on, and which programs it compiled and loaded. Imports no JAX.

A sweep asks each of its runs for one by the environment variable `VARIABLE` and adds them up.
`programs.py` makes them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpt2_jax.errors import NOT_JSON

VARIABLE = "GPT2_JAX_RUN_INFO"
"""The environment variable that names the file of the note, on a disk or in a bucket."""


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """Says what a process ran on, and what it had to compile.

    Attributes:
      environment: {what: text} of versions, devices and the processor.
      compiled: names of the functions that were compiled.
      loaded: names of the functions whose programs were in the compilation cache.
    """

    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    compiled: Sequence[str] = ()
    loaded: Sequence[str] = ()

    def to_bytes(self) -> bytes:
        """Returns the note as one line of JSON."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"


def read_run_info(path: Path) -> RunInfo:
    """Returns the note in a file, or an empty one if there is none that `to_bytes` wrote."""
    try:
        values = json.loads(path.read_bytes())
        return RunInfo(
            {str(name): str(text) for name, text in values["environment"].items()},
            [str(name) for name in values["compiled"]],
            [str(name) for name in values["loaded"]],
        )
    except (*NOT_JSON, AttributeError, KeyError, TypeError):
        return RunInfo()
