"""One trainer at a time in a workdir: a lock that does not outlive its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from gpt2_jax.errors import UserError, warn
from gpt2_jax.files.bucket_lock import BucketLock
from gpt2_jax.files.lock_owner import Holder, in_use
from gpt2_jax.files.storage import is_remote


def make_lock(workdir: Path) -> FileLock | BucketLock:
    """The lock of a workdir, not acquired yet."""
    return BucketLock(workdir) if is_remote(workdir) else FileLock(workdir)


class FileLock:
    """The operating system's lock on a file, which it ends with the holder, however that ends."""

    def __init__(self, workdir: Path) -> None:
        self._workdir, self._path = workdir, workdir / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock; where the disk keeps none, warns and goes on without.

        Raises:
          UserError: if another trainer has it, or the file can't be opened.
        """
        while self._descriptor is None:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except (PermissionError, IsADirectoryError) as error:
                raise UserError(f"can't lock --workdir: {self._path}: {error.strerror}") from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = Holder.parse(os.pread(descriptor, 4096, 0))
                os.close(descriptor)
                raise in_use(self._workdir, holder) from None
            except OSError as error:
                os.close(descriptor)
                warn(
                    f"{self._workdir} can't be locked ({error.strerror}): take care that no second "
                    "trainer is started there"
                )
                return
            # Whoever had it may have removed the file since we opened it: then try the new one.
            if self._is_of(descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)
        _held.add(self)
        with contextlib.suppress(OSError):  # on a full disk it is a lock without a name
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, Holder.this().to_bytes(), 0)

    def release(self) -> None:
        """Removes the file and only then lets go of it: see `acquire`."""
        with contextlib.suppress(OSError):  # a file that stays is no lock
            if self._descriptor is not None and self._is_of(self._descriptor):
                self._path.unlink()
        self._close()

    def _is_of(self, descriptor: int) -> bool:
        """Whether the open file is the one that is at the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        _held.discard(self)


_held: set[FileLock] = set()


def _leave_to_parent() -> None:
    for lock in list(_held):
        lock._close()


# A forked process would have the lock too, and may live longer.
os.register_at_fork(after_in_child=_leave_to_parent)
