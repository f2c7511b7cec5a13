"""The hidden folder beside `out` in which `prepare` works, kept if a run ends too early.

It holds the tokens of finished work items under names derived from their text and settings, so that
the next run for this `out` uses whatever still applies, even if some text or setting has changed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gpt2_jax.files.lock import lock_folder


class Staging:
    """Holds the folders that `prepare` writes to, while this process has the lock on them.

    Attributes:
      encoded: folder for the tokens of work items.
      shards: folder that becomes `out`, empty at first.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the folders, and removes what a killed run left unfinished."""
        self.encoded, self.shards = folder / "parts", folder / "shards"
        self.encoded.mkdir(exist_ok=True)
        shutil.rmtree(self.shards, ignore_errors=True)
        self.shards.mkdir()
        for temporary in self.encoded.glob("*.tmp"):
            temporary.unlink(missing_ok=True)

    def has_tokens(self) -> bool:
        """Returns whether there are tokens that another run could use."""
        return any(path.stat().st_size for path in self.encoded.glob("*.tokens"))

    def remove(self) -> None:
        """Removes both folders with everything in them."""
        for folder in (self.encoded, self.shards):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def open_staging(out: Path, keep: bool) -> Iterator[Staging]:
    """Makes and locks the folder beside `out`, and removes it at the end.

    Args:
      out: the folder that `prepare` is to make.
      keep: whether the folder stays, if the block fails and there are tokens for another run.

    Raises:
      UserError: if another process is preparing the same `out`.
    """
    place = Path(os.path.realpath(out))
    folder = place.parent / f".{place.name}.preparing"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock_folder(folder, f"--out {out}", activity="being prepared"):
            staging = Staging(folder)
            try:
                yield staging
            except BaseException:
                if not (keep and staging.has_tokens()):
                    staging.remove()
                raise
            staging.remove()
    finally:
        # It is empty unless something was kept, or a process that waited has locked it since.
        with contextlib.suppress(OSError):
            folder.rmdir()
