"""The config files that come with the package, which `--config` finds by their names alone."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped_configs() -> dict[str, Path]:
    """Returns {name: file} of the configs, sorted by name.

    `setup.py` installs the folder `configs/` of the repository into the package.
    """
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if files := sorted(folder.glob("*.py")):
            return {file.stem: file for file in files if file.stem != "__init__"}
    return {}
