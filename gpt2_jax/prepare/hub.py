"""Data sets of the Hugging Face hub, streamed: nothing is kept but tokens."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2_jax.errors import UserError, shortened
from gpt2_jax.prepare.pieces import Text, checked_text, extra, whole
from gpt2_jax.tokenizers.tokenizer import Tokenizer

HUB = "hub:"


@dataclasses.dataclass(frozen=True)
class HubPart:
    """One file of a data set at one revision."""

    repository: str
    config: str | None
    split: str
    revision: str
    text_field: str
    index: int
    count: int
    pinned: bool = True

    def texts(self, tokenizer: Tokenizer) -> Iterator[Text]:
        """The rows' texts in pieces."""
        rows = _open(self.repository, self.config, self.split, self.revision)
        rows = rows.shard(num_shards=self.count, index=self.index)
        return whole(self._documents(rows), tokenizer)

    def identity(self) -> Any:
        """Everything but how it is read: a revision never changes."""
        return dataclasses.astuple(self)

    def _documents(self, rows: Any) -> Iterator[tuple[str, str]]:
        try:
            for number, row in enumerate(rows):
                where = f"{HUB}{self.repository}, file {self.index}, row {number}"
                if self.text_field not in row:
                    raise UserError(
                        f"{where}, has no column {self.text_field!r} (it has "
                        f"{shortened(', '.join(row), 80)}); name it with --text_field"
                    )
                yield where, checked_text(row[self.text_field], where, self.text_field)
        except UserError:
            raise
        except Exception as error:  # of datasets, of what it reads with, or of the network
            raise UserError(
                f"cannot read {HUB}{self.repository}: {_reason(error)}; run the same command again "
                "to go on"
            ) from None


def hub_parts(name: str, text_field: str) -> list[HubPart]:
    """The parts of `hub:OWNER/NAME[:CONFIG[:SPLIT]]`, one a file; the split is train by default.

    A folder that holds a data set in the hub's layout may stand for OWNER/NAME.

    Raises:
      UserError: for a data set that can't be had.
    """
    repository, config, split = (*name.removeprefix(HUB).split(":"), "", "")[:3]
    if not repository or name.count(":") > 3:
        raise UserError(f"--input {name}: a data set is hub:OWNER/NAME[:CONFIG[:SPLIT]]")
    folder = Path(repository)
    if folder.is_dir():
        repository, revision = str(folder.resolve()), _folder_revision(folder)
    else:
        hub = extra("hub", "huggingface_hub", f"--input {name}")
        try:
            revision = hub.HfApi().dataset_info(repository).sha
        except Exception as error:  # of the network, of the hub, of its client
            raise UserError(f"cannot find {name}: {_reason(error)}") from None
    count = _open(repository, config or None, split or "train", revision).num_shards
    return [
        HubPart(
            repository,
            config or None,
            split or "train",
            revision,
            text_field,
            i,
            count,
            pinned=not folder.is_dir(),
        )
        for i in range(count)
    ]


def _open(repository: str, config: str | None, split: str, revision: str) -> Any:
    """The data set as a stream of rows."""
    datasets = extra("hub", "datasets", f"{HUB}{repository}")
    local = os.path.isdir(repository)
    try:
        return datasets.load_dataset(
            repository,
            config,
            split=split,
            streaming=True,
            revision=None if local else revision,
        )
    except Exception as error:  # whatever the library, the network or the data set has to say
        raise UserError(f"cannot open {HUB}{repository}: {_reason(error)}") from None


def _folder_revision(folder: Path) -> str:
    """Names, sizes and times of a folder's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
    described = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return hashlib.sha256(described.encode()).hexdigest()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {shortened(str(error), 200)}"
