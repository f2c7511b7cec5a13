"""The tensors in the safetensors files of a folder, in one file or in several with an index."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from gpt2_jax.errors import NOT_JSON, UserError
from gpt2_jax.formats.pickles import refuse_pickles

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PREFIX = "transformer."
"""What the name of every tensor but the head begins with, in most files."""

# Old checkpoints store two buffers beside the weights: the causal mask and the masking value.
_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
_DTYPES = ("F32", "F16", "BF16")  # each exact in float32


class SafetensorsFiles:
    """Reads the tensors of a folder's safetensors files, by their names without the prefix."""

    def __init__(self, folder: Path, only: str | None = None) -> None:
        """Reads the headers; safetensors itself checks that they match the file.

        Args:
          folder: has the files.
          only: the name of the only one to read; by default those of a whole model.
        """
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._locations: dict[str, tuple[Path, str]] = {}
        files = {folder / only: None} if only else weight_files(folder)
        for path, indexed in files.items():
            with _opened(path) as file:
                names = set(file.keys())
                if indexed is not None and (missing := sorted(indexed - names)):
                    raise UserError(
                        f"{path} does not have the tensor {missing[0]}, which the index lists in it"
                    )
                for full_name in sorted(names if indexed is None else indexed):
                    self._add(path, full_name, file.get_slice(full_name))

    def _add(self, path: Path, full_name: str, header: Any) -> None:
        name = full_name.removeprefix(PREFIX)
        if _BUFFER.fullmatch(name):
            return
        if name in self._locations:
            raise UserError(
                f"{path} holds {name} twice, as {full_name} and {self._locations[name][1]}"
            )
        if header.get_dtype() not in _DTYPES:
            raise UserError(
                f"{path}: {full_name} has the dtype {header.get_dtype()}; it must be one "
                f"of {', '.join(_DTYPES)}"
            )
        self.shapes[name] = tuple(header.get_shape())
        self._locations[name] = path, full_name

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor, read when it is asked for."""
        path, full_name = self._locations[name]
        with _opened(path) as file:
            return file.get_tensor(full_name)


def weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """Returns {weight file: the tensors that an index expects in it, or None without an index}."""
    index = folder / INDEX
    if index.is_file():
        indexed: dict[Path, set[str] | None] = {}
        for name, file in _weight_map(index).items():
            # The index is untrusted: it must not name files outside this folder.
            if Path(file).name != file or not file.endswith(".safetensors"):
                raise UserError(f"{index} names {file!r}, which is not a file of its folder")
            indexed.setdefault(folder / file, set()).add(name)  # pyright: ignore
        return indexed
    if (folder / WEIGHTS).is_file():
        return {folder / WEIGHTS: None}
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return {found[0]: None}
    if found:
        raise UserError(f"{folder} has {len(found)} safetensors files but no {INDEX}")
    refuse_pickles(folder)
    raise UserError(f"{folder} has a config.json but no {WEIGHTS}")


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not weight_map or not all(isinstance(file, str) for file in weight_map.values()):
            raise TypeError("weight_map must map tensors to files")
        return weight_map
    except (*NOT_JSON, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is not an index of weights: {error}") from error


class _opened:
    """Opens a safetensors file; failures are a UserError that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Any:
        try:
            self._file = safe_open(self._path, framework="np")
            return self._file.__enter__()
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self._path} is not a complete safetensors file: {error}") from error

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)
