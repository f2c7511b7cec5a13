"""Data sets of the Hugging Face hub, which are streamed: only their tokens are stored."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2_jax.errors import UserError, shortened
from gpt2_jax.files.extras import import_extra
from gpt2_jax.files.lfs import refuse_lfs_pointers
from gpt2_jax.files.paths import local_path
from gpt2_jax.prepare.pieces import (
    InvalidRowError,
    Piece,
    checked_text,
    refuse_invalid,
    split_documents,
)
from gpt2_jax.tokenizers.tokenizer import Tokenizer

HUB = "hub:"


@dataclasses.dataclass(frozen=True)
class HubItem:
    """Names one file of a data set at one revision.

    The fields and their order are part of the keys of tokens on disk: `prepare` resumes, and
    recognizes what it prepared, only if they stay.
    """

    repository: str
    config: str | None
    split: str
    revision: str
    text_field: str
    index: int
    count: int
    pinned: bool = True
    skip_invalid: bool = False

    def pieces(self, tokenizer: Tokenizer) -> Iterator[Piece]:
        """Yields the rows' texts in pieces, and with them rows to leave out."""
        rows = _open(self.repository, self.config, self.split, self.revision)
        rows = rows.shard(num_shards=self.count, index=self.index)
        return refuse_invalid(split_documents(self._documents(rows), tokenizer), self.skip_invalid)

    def identity(self) -> Any:
        """Returns all fields: the content at a revision never changes."""
        *fields, skip_invalid = dataclasses.astuple(self)
        return (*fields, "skip_invalid") if skip_invalid else tuple(fields)

    def _documents(self, rows: Any) -> Iterator[tuple[str, str | InvalidRowError]]:
        try:
            for number, row in enumerate(rows):
                where = f"{HUB}{self.repository}, file {self.index}, row {number}"
                if self.text_field not in row:
                    raise UserError(
                        f"{where}, has no column {self.text_field!r} (its columns: "
                        f"{shortened(', '.join(row), 80)}); name it with --text_field"
                    )
                try:
                    yield where, checked_text(row[self.text_field], self.text_field)
                except InvalidRowError as error:
                    yield where, error
        except UserError:
            raise
        except Exception as error:  # from datasets, the readers it uses, or the network
            raise UserError(
                f"cannot read {HUB}{self.repository}: {_reason(error)}; run the same command again "
                "to resume"
            ) from None


def hub_items(name: str, text_field: str, skip_invalid: bool = False) -> list[HubItem]:
    """Returns a work item for each file of a data set.

    Args:
      name: `hub:OWNER/NAME[:CONFIG[:SPLIT]]`, by default with the split train. Instead of
        OWNER/NAME it may have the path of a folder with a data set in the hub's layout.
      text_field: the column with the text.
      skip_invalid: whether rows without valid text are left out.

    Raises:
      UserError: if the data set cannot be found or opened, or a file of its folder is a Git LFS
        pointer.
    """
    repository, config, split = (*name.removeprefix(HUB).split(":"), "", "")[:3]
    if not repository or name.count(":") > 3:
        raise UserError(f"--input {name} must have the form hub:OWNER/NAME[:CONFIG[:SPLIT]]")
    folder = local_path(repository, "--input")
    if folder.is_dir():
        refuse_lfs_pointers(folder, ["**/*"])
        repository, revision = str(folder.resolve()), _folder_revision(folder)
    else:
        hub = import_extra("huggingface_hub", extra="hub", needed_by=f"--input {name}")
        try:
            revision = hub.HfApi().dataset_info(repository).sha
        except Exception as error:  # from the network, the hub or its client
            raise UserError(f"cannot find {name}: {_reason(error)}") from None
    count = _open(repository, config or None, split or "train", revision).num_shards
    return [
        HubItem(
            repository,
            config or None,
            split or "train",
            revision,
            text_field,
            i,
            count,
            pinned=not folder.is_dir(),
            skip_invalid=skip_invalid,
        )
        for i in range(count)
    ]


def _open(repository: str, config: str | None, split: str, revision: str) -> Any:
    """Opens the data set as a stream of rows."""
    datasets = import_extra("datasets", extra="hub", needed_by=f"{HUB}{repository}")
    local = os.path.isdir(repository)
    try:
        return datasets.load_dataset(
            repository,
            config,
            split=split,
            streaming=True,
            revision=None if local else revision,
        )
    except Exception as error:  # from the library, the network or the data set
        raise UserError(f"cannot open {HUB}{repository}: {_reason(error)}") from None


def _folder_revision(folder: Path) -> str:
    """Returns the sum of the names, sizes and times of a folder's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
    described = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return hashlib.sha256(described.encode()).hexdigest()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {shortened(str(error), 400)}"
