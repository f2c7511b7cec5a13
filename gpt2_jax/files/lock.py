"""Locks of folders: one process at a time, and no lock outlives the process that owns it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Protocol, Self

from gpt2_jax.errors import UserError, warn
from gpt2_jax.files.bucket_lock import BucketLock
from gpt2_jax.files.lock_owner import LockOwner, in_use_error
from gpt2_jax.files.paths import is_remote


class Lock(Protocol):
    """Locks a folder from `acquire` to `release`, or in a `with` block."""

    def acquire(self) -> None:
        """Takes the lock; UserError if another process has it."""
        ...

    def release(self) -> None:
        """Gives the lock back, if this process has it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def lock_folder(folder: Path, name: str, *, activity: str = "in use") -> Lock:
    """Returns the lock of a folder on a disk or in a bucket, which is not acquired yet.

    Args:
      folder: the folder, in which the lock is a file called `lock`.
      name: what the user calls the folder, such as "--workdir runs/small", for messages.
      activity: what the owner of the lock does with the folder, for messages.
    """
    kind = BucketLock if is_remote(folder) else FileLock
    return kind(folder, name, activity=activity)


class FileLock:
    """Locks a folder with the operating system's lock on a file, which ends with the process."""

    def __init__(self, folder: Path, name: str = "", *, activity: str = "in use") -> None:
        """Prepares the lock; see `lock_folder`."""
        self._folder, self._path = folder, folder / "lock"
        self._name, self._activity = name or os.fspath(folder), activity
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock, and makes the folder if it is missing.

        On a disk that supports no locks it warns and returns without one.

        Raises:
          UserError: if another process has the lock, or the lock's file cannot be opened.
        """
        while self._descriptor is None:
            descriptor = self._open()
            if descriptor is None:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = LockOwner.parse(os.pread(descriptor, 4096, 0))
                os.close(descriptor)
                raise in_use_error(self._name, self._activity, owner) from None
            except OSError as error:
                os.close(descriptor)
                warn(
                    f"{self._name} cannot be locked ({error.strerror}): make sure that no second "
                    "process is started with it"
                )
                return
            # Its last owner may have removed the file since it was opened: then lock the new one.
            if self._is_current(descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)
        _acquired.add(self)
        with contextlib.suppress(OSError):  # on a full disk the lock holds without its owner's name
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, LockOwner.this_process().to_bytes(), 0)

    def release(self) -> None:
        """Removes the file, and only then gives the lock on it back: see `acquire`."""
        with contextlib.suppress(OSError):  # a file that stays does not lock the folder
            if self._descriptor is not None and self._is_current(self._descriptor):
                self._path.unlink()
        self._close()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _open(self) -> int | None:
        """Opens the lock's file; returns None if its last owner has just removed the folder."""
        # Path.mkdir(exist_ok=True) would raise if the folder is removed just after it was found.
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder)
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            return None
        except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
            raise UserError(f"cannot lock {self._name}: {self._path}: {error.strerror}") from error

    def _is_current(self, descriptor: int) -> bool:
        """Returns whether the open file is still the one at the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        _acquired.discard(self)


_acquired: set[FileLock] = set()


def _close_in_child() -> None:
    for lock in list(_acquired):
        lock._close()


# A forked child shares the open file, and with it the lock: it may live longer than its parent.
os.register_at_fork(after_in_child=_close_in_child)
