"""The lock of a workdir in Google Cloud Storage.

An object tells who holds the workdir. On the holder's machine it counts as long as that process is
there. Elsewhere it counts until it is five minutes old; the holder writes it anew every minute. It
is only ever written on condition that it still is the one that was read (its generation), so that
two can't take it at once.
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
from typing import Any

from gpt2_jax.errors import UserError, warn
from gpt2_jax.files.lock_owner import Holder, in_use

_REQUEST_S = 60


@dataclasses.dataclass(frozen=True)
class _Found:
    """A bucket's lock as it was found.

    Attributes:
      age_s: seconds since it was written, by the clocks of the storage.
    """

    holder: Holder
    generation: str
    age_s: float


class BucketLock:
    """An object that says who holds the workdir, in a bucket that knows no locks."""

    def __init__(
        self, workdir: Path, *, refresh_s: float = 60, stale_s: float = 300, poll_s: float = 5
    ) -> None:
        """Prepares the lock.

        Args:
          refresh_s: how often its holder writes it.
          stale_s: age from which its holder is taken for dead.
          poll_s: how often one that waits looks.
        """
        import fsspec

        self._files: Any = fsspec.filesystem("gcs")
        self._workdir, self._holder = workdir, Holder.this()
        place = os.fspath(workdir).removeprefix("gs://")
        self._bucket, _, self._key = f"{place}/lock".partition("/")
        self._refresh_s, self._stale_s, self._poll_s = refresh_s, stale_s, poll_s
        self._generation: str | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="lock", daemon=True)

    def acquire(self) -> None:
        """Takes the lock, if need be after its last holder has been silent for long enough.

        Raises:
          UserError: if another trainer has it, or the bucket refuses.
        """
        waiting_for: str | None = None
        try:
            while self._generation is None:
                found = self._find()
                if found is None or self._is_ours(found) or self._is_stale(found):
                    self._write(found)
                    continue
                if found.holder.is_alive() or waiting_for not in (None, found.generation):
                    raise in_use(self._workdir, found.holder)
                if waiting_for is None:
                    left_s = self._stale_s - found.age_s
                    warn(
                        f"{self._workdir} may be in use by {found.holder}: waiting for a sign of "
                        f"life, {left_s:.0f} s at most"
                    )
                waiting_for = found.generation
                time.sleep(self._poll_s)
        except OSError as error:  # such as a missing permission
            raise UserError(f"can't lock --workdir {self._workdir}: {error}") from error
        self._thread.start()

    def release(self) -> None:
        """Removes the object if it is ours."""
        if self._generation is None:
            return
        self._released.set()
        self._thread.join()
        try:
            self._call("DELETE", *self._object, ifGenerationMatch=self._generation)
        except Exception as error:  # whatever it is, the run itself has ended
            warn(f"{self._workdir}/lock can't be removed and counts for minutes yet: {error}")
        self._generation = None

    def _keep_fresh(self) -> None:
        while not self._released.wait(self._refresh_s):
            with contextlib.suppress(Exception):  # a network may fail for a while
                found = self._find()
                if found is not None and not self._is_ours(found):
                    self._end(found.holder)
                self._write(found)

    def _end(self, other: Holder) -> None:
        """Ends the process, which was cut off for so long that the run has gone on without it."""
        line = f"\nerror: --workdir {self._workdir} has been taken over by {other}\n"
        os.write(2, line.encode())
        os._exit(UserError.exit_status)

    def _is_ours(self, found: _Found) -> bool:
        """Also when the answer to a write was lost: then we have it and do not know."""
        return found.holder.token == self._holder.token

    def _is_stale(self, found: _Found) -> bool:
        alive = found.holder.is_alive()
        return found.age_s > self._stale_s if alive is None else not alive

    def _find(self) -> _Found | None:
        """The object, None where there is none."""
        try:
            headers, text = self._call("GET", *self._object)
            resource = json.loads(text)
            generation = resource["generation"]
            _, content = self._call("GET", *self._object, alt="media", generation=generation)
        except FileNotFoundError:
            return None
        now = email.utils.parsedate_to_datetime(headers["Date"])
        age_s = (now - datetime.fromisoformat(resource["updated"])).total_seconds()
        return _Found(Holder.parse(content), generation, max(age_s, 0.0))

    def _write(self, found: _Found | None) -> None:
        """Makes the object ours, unless it is no longer the one that was found."""
        with contextlib.suppress(FileExistsError):  # what gcsfs makes of a condition that fails
            _, text = self._call(
                "POST",
                self._files.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o",
                self._bucket,
                uploadType="media",
                name=self._key,
                ifGenerationMatch=found.generation if found else "0",
                data=self._holder.to_bytes(),
            )
            self._generation = json.loads(text)["generation"]

    @property
    def _object(self) -> tuple[str, str, str]:
        return "b/{}/o/{}", self._bucket, self._key

    def _call(self, *request: str, **settings: Any) -> tuple[Any, bytes]:
        """(headers, content) of what the storage answers."""
        return self._files.call(*request, timeout=_REQUEST_S, **settings)
