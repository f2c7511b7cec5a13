"""Packages of the optional extras, which are imported only where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from gpt2_jax.errors import UserError


def import_extra(package: str, *, extra: str, needed_by: str) -> Any:
    """Imports a package that only an extra installs, and returns the module.

    Args:
      package: the name to import, such as "pyarrow.parquet".
      extra: the extra of this project that installs it, such as "data".
      needed_by: what needs the package, which begins the error message, such as "--engine ray".

    Raises:
      UserError: if the package is missing, naming the extra, or if it cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        top = package.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == top:
            raise UserError(
                f"{needed_by} needs the {extra} extra: pip install 'gpt2_jax[{extra}]'"
            ) from None
        # Installing the extra would change nothing: the package, or what it needs, is broken.
        raise UserError(
            f"{needed_by} needs the package {top}, which is installed and cannot be imported "
            f"({error}): pip install --force-reinstall {top}"
        ) from error
