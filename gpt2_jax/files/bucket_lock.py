"""Locks of folders in Google Cloud Storage, which has no locks of its own.

An object records the owner of the folder. On the owner's machine the lock holds as long as the
owner's process runs. On other machines it holds until the object is five minutes old; the owner
rewrites it every minute. It is only ever written on condition that it is still the one that was
read (its generation), so two processes cannot take the lock at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import json
import os
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from gpt2_jax.errors import UserError, warn
from gpt2_jax.files.lock_owner import LockOwner, in_use_error

_REQUEST_S = 60


@dataclasses.dataclass(frozen=True)
class _StoredLock:
    """The object of a lock as it was read.

    Attributes:
      owner: the process that wrote it.
      generation: the storage's number for this version of the object.
      age_s: seconds since it was written, by the clocks of the storage.
    """

    owner: LockOwner
    generation: str
    age_s: float


class BucketLock:
    """Locks a folder in a bucket with an object that records the owner."""

    def __init__(
        self,
        folder: Path,
        name: str = "",
        *,
        activity: str = "in use",
        refresh_s: float = 60,
        stale_s: float = 300,
        poll_s: float = 5,
    ) -> None:
        """Prepares the lock.

        Args:
          folder: the folder in the bucket.
          name: what the user calls the folder, for messages.
          activity: what the owner of the lock does with the folder, for messages.
          refresh_s: seconds after which the owner rewrites the object.
          stale_s: age in seconds from which the owner on another machine counts as dead.
          poll_s: seconds between two looks at the lock of another machine.
        """
        import fsspec

        self._files: Any = fsspec.filesystem("gcs")
        self._name, self._activity = name or os.fspath(folder), activity
        self._owner = LockOwner.this_process()
        self._url = f"{os.fspath(folder)}/lock"
        self._bucket, _, self._key = self._url.removeprefix("gs://").partition("/")
        self._refresh_s, self._stale_s, self._poll_s = refresh_s, stale_s, poll_s
        self._generation: str | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="lock", daemon=True)

    def acquire(self) -> None:
        """Takes the lock, if necessary after its last owner has been silent for long enough.

        Raises:
          UserError: if another process has it, or the bucket refuses the request.
        """
        awaited: str | None = None
        try:
            while self._generation is None:
                stored = self._read()
                if stored is None or self._is_ours(stored) or self._is_stale(stored):
                    self._write(stored)
                    continue
                if stored.owner.is_alive() or awaited not in (None, stored.generation):
                    raise in_use_error(self._name, self._activity, stored.owner)
                if awaited is None:
                    left_s = self._stale_s - stored.age_s
                    warn(
                        f"{self._name} may be {self._activity} by {stored.owner}: waiting at most "
                        f"{left_s:.0f} s for a sign of life"
                    )
                awaited = stored.generation
                time.sleep(self._poll_s)
        except OSError as error:  # such as a missing permission
            raise UserError(f"cannot lock {self._name}: {error}") from error
        self._thread.start()

    def release(self) -> None:
        """Removes the object if it is this owner's."""
        if self._generation is None:
            return
        self._released.set()
        self._thread.join()
        try:
            self._call("DELETE", *self._object, ifGenerationMatch=self._generation)
        except Exception as error:  # of any kind: the work under the lock has ended
            warn(
                f"{self._url} cannot be removed and locks the folder until it is "
                f"{self._stale_s:.0f} s old: {error}"
            )
        self._generation = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _keep_fresh(self) -> None:
        while not self._released.wait(self._refresh_s):
            with contextlib.suppress(Exception):  # a network may fail for a while
                stored = self._read()
                if stored is not None and not self._is_ours(stored):
                    self._end_process(stored.owner)
                self._write(stored)

    def _end_process(self, other: LockOwner) -> None:
        """Ends this process: it was cut off for so long that another one has taken its place."""
        line = f"\nerror: {self._name} has been taken over by {other}\n"
        os.write(2, line.encode())
        os._exit(UserError.exit_status)

    def _is_ours(self, stored: _StoredLock) -> bool:
        """Returns whether this owner wrote the object, even if the answer to that was lost."""
        return stored.owner.token == self._owner.token

    def _is_stale(self, stored: _StoredLock) -> bool:
        alive = stored.owner.is_alive()
        return stored.age_s > self._stale_s if alive is None else not alive

    def _read(self) -> _StoredLock | None:
        """Returns the object, or None if it does not exist."""
        try:
            headers, text = self._call("GET", *self._object)
            resource = json.loads(text)
            generation = resource["generation"]
            _, content = self._call("GET", *self._object, alt="media", generation=generation)
        except FileNotFoundError:
            return None
        now = email.utils.parsedate_to_datetime(headers["Date"])
        age_s = (now - datetime.fromisoformat(resource["updated"])).total_seconds()
        return _StoredLock(LockOwner.parse(content), generation, max(age_s, 0.0))

    def _write(self, stored: _StoredLock | None) -> None:
        """Writes this owner into the object, unless it has changed since it was read."""
        with contextlib.suppress(FileExistsError):  # gcsfs raises it if the condition fails
            _, text = self._call(
                "POST",
                self._files.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o",
                self._bucket,
                uploadType="media",
                name=self._key,
                ifGenerationMatch=stored.generation if stored else "0",
                data=self._owner.to_bytes(),
            )
            self._generation = json.loads(text)["generation"]

    @property
    def _object(self) -> tuple[str, str, str]:
        return "b/{}/o/{}", self._bucket, self._key

    def _call(self, *request: str, **settings: Any) -> tuple[Any, bytes]:
        """Returns the headers and the content of the storage's answer to a request."""
        return self._files.call(*request, timeout=_REQUEST_S, **settings)
