"""What a config file may import and print: the modules beside it, and without harm to --json."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

_LIBRARIES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


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
def as_config_file(file: Path) -> Iterator[str]:
    """Lets the code of a config file import its neighbours, and print; yields its package's name.

    In the block the package's name means the folder of the file, whatever else has this name: the
    current folder, `sys.path` or a module that has been imported before. Only a library keeps its
    name; then the package of the file has another, which relative imports use. The folder of the
    file is the first on `sys.path`, as it is for a script, and the folder above its package is the
    last. Standard output goes to standard error, because that of the command may be a JSON
    document. Afterwards `sys.path` and the modules are as before, and the imported neighbours are
    forgotten, because the next config file may have others of the same name.

    Args:
      file: the absolute path of the config file.
    """
    root, package = package_of(file)
    top, dot, rest = package.partition(".")
    name = f"{top}_of_config" if _is_library(top) else top
    neighbours = {path.stem for path in file.parent.glob("*.py")} | {name}
    hidden = _take_modules({other for other in neighbours if not _is_library(other)})
    before = {*sys.modules}
    path, finders, no_bytecode = list(sys.path), list(sys.meta_path), sys.dont_write_bytecode
    sys.path[:] = [os.fspath(file.parent), *path, os.fspath(root)]
    if package:
        sys.meta_path.insert(0, _Folder(name, root / top))
    sys.dont_write_bytecode = True  # the folder is the user's
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield name + dot + rest
    finally:
        sys.path[:], sys.meta_path[:], sys.dont_write_bytecode = path, finders, no_bytecode
        added = {other.partition(".")[0] for other in {*sys.modules} - before}
        # A library that the file is the first to import stays.
        _take_modules(
            {other for other in added - before if _folder_of(other) in (file.parent, root)}
        )
        sys.modules.update(hidden)


class _Folder:
    """Finds one package in one folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns where the package is, and None for every other name, as `import` asks."""
        if fullname != self._name:
            return None
        places, init = [os.fspath(self._folder)], self._folder / "__init__.py"
        if init.is_file():
            return importlib.util.spec_from_file_location(
                fullname, init, submodule_search_locations=places
            )
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = places
        return spec


def _is_library(name: str) -> bool:
    """Returns whether a top-level module belongs to Python, is installed, or is this package."""
    if name in sys.stdlib_module_names or name == __name__.partition(".")[0]:
        return True
    spec = importlib.machinery.PathFinder.find_spec(name, _LIBRARIES)
    return spec is not None and spec.origin is not None


def _folder_of(name: str) -> Path | None:
    """Returns the folder that a module that has been imported was found in, if it has one."""
    module = sys.modules.get(name)
    places = list(getattr(module, "__path__", ())) or [getattr(module, "__file__", None)]
    return Path(places[0]).parent if isinstance(places[0], str) else None


def _take_modules(names: set[str]) -> dict[str, types.ModuleType]:
    """Removes top-level modules and what is in them from those that have been imported."""
    taken = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in taken}
