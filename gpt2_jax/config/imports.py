"""What a config file may import and print: the modules beside it, and without harm to --json."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def package_of(file: Path) -> tuple[Path, str]:
    """Returns (the folder that has the package of a file, the package's dotted name).

    Without `__init__.py`, the file's own folder is the package. The name is empty if it cannot be
    imported, as that of `my-configs`.
    """
    folder = file.parent
    names = [folder.name]
    while (folder / "__init__.py").exists() and (folder.parent / "__init__.py").exists():
        folder = folder.parent
        names.insert(0, folder.name)
    importable = all(name.isidentifier() for name in names)
    return folder.parent, ".".join(names) if importable else ""


@contextlib.contextmanager
def as_config_file(file: Path) -> Iterator[None]:
    """Lets the code of a config file import its neighbours, and print.

    In the block the folder of the file is the first on `sys.path`, as it is for a script, and the
    folder above its package is the last. Standard output goes to standard error, because that of
    the command may be a JSON document. Afterwards `sys.path` is as before, and the imported
    neighbours are forgotten, because the next config file may have others of the same name.

    Args:
      file: the absolute path of the config file.
    """
    root, _ = package_of(file)
    before = {*sys.modules}
    path, no_bytecode = list(sys.path), sys.dont_write_bytecode
    sys.path[:] = [os.fspath(file.parent), *path, os.fspath(root)]
    sys.dont_write_bytecode = True  # the folder is the user's
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, no_bytecode
        for name in {*sys.modules} - before:
            top = name.partition(".")[0]
            # A library that the file is the first to import stays.
            if top not in before and any(
                _has_module(parent, top) for parent in (file.parent, root)
            ):
                del sys.modules[name]


def _has_module(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()
