"""Where `prepare` works: a hidden folder beside `out`, kept when the run ends too early.

It holds the tokens of finished parts under names that say what they are made of, so that the next
run for this `out` takes up whatever it can use, even if some text or setting is another by then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gpt2_jax.errors import UserError


class Staging:
    """The folder, while this process alone has it.

    Attributes:
      parts: folder for the tokens of parts.
      shards: folder that becomes `out`, empty at first.
    """

    def __init__(self, folder: Path) -> None:
        """Tidies up what a killed run left half-way."""
        self.parts, self.shards = folder / "parts", folder / "shards"
        self.parts.mkdir(exist_ok=True)
        shutil.rmtree(self.shards, ignore_errors=True)
        self.shards.mkdir()
        for temporary in self.parts.glob("*.tmp"):
            temporary.unlink(missing_ok=True)

    def has_tokens(self) -> bool:
        """Whether there is anything that another run could take up."""
        return any(path.stat().st_size for path in self.parts.glob("*.tokens"))


@contextlib.contextmanager
def open_staging(out: Path, keep: bool) -> Iterator[Staging]:
    """Takes the folder beside `out`; at the end it goes away, unless the block fails.

    Args:
      keep: whether tokens are kept then for another run to take up.

    Raises:
      UserError: when another process has it.
    """
    place = out.absolute()
    folder = place.parent / f".{place.name}.preparing"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, out):
        staging = Staging(folder)
        try:
            yield staging
        except BaseException:
            if not (keep and staging.has_tokens()):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, out: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system frees when the process ends, however it ends."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:  # who had it has just finished and removed the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(lock, folder / "lock"):
                yield
                return
        except BlockingIOError:
            raise UserError(
                f"--out {out} is being prepared by another process: wait for it, or choose another"
            ) from None
        finally:
            os.close(lock)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
