"""Serves the files of the explorer's page, squeezed; they need no key, as its numbers do.

The page loads nothing from other addresses, and its headers forbid it to.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from gpt2_jax.serve import manual
from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.squeeze import SQUEEZED, squeezed

INDEX, STATIC, MANUAL = "/", "/static/", "/docs/"
"""The paths of the page and, behind the others, of its files and of the documents."""
FOLDER = Path(__file__).parent / "static"
CONTENT_SECURITY = (
    "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'"
)
"""No code, style or data of another address, no code within the page, no page around it."""
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/html; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
"""What a file may be; others are not served."""
_PACKED = (".ico", ".png", ".woff2")
WORTH_PACKING = 1024
"""The least bytes of a content that is sent compressed."""
_LEVEL = 9


def is_public(path: str) -> bool:
    """Returns whether the page, a file of it or a document is at a path."""
    return path == INDEX or path.startswith((STATIC, MANUAL))


class _File(NamedTuple):
    """Holds a file as it is sent; `stamp` changes when the file does."""

    stamp: tuple[int, int]
    content: bytes
    packed: bytes | None
    tag: str


class Pages:
    """Answers requests for files of one folder, and keeps what it has read."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Takes the folder, with `index.html` in it."""
        self._folder = folder.resolve()
        self._kept: dict[Path, _File] = {}

    def answer(self, request: Request, name: str = "index.html") -> Response:
        """Returns the response with a file.

        Args:
          request: of which the headers about encodings and known versions are used.
          name: of the file in the folder, with slashes.

        Raises:
          ApiError: 404 unless it is a file of the folder of a known type.
        """
        path = self._find(name)
        file = self._read(path)
        headers = {
            "content-security-policy": CONTENT_SECURITY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            # The browser asks each time, and is told that nothing has changed.
            "cache-control": "no-cache",
            "etag": file.tag,
            "vary": "accept-encoding",
        }
        if is_known(request, file.tag):
            return Response(status_code=304, headers=headers)
        headers["content-type"] = CONTENT_TYPES[path.suffix]
        if file.packed is not None and takes_gzip(request):
            return Response(file.packed, headers=headers | {"content-encoding": "gzip"})
        return Response(file.content, headers=headers)

    def _find(self, name: str) -> Path:
        parts = name.split("/")
        plain = all(part and not part.startswith(".") and part.isprintable() for part in parts)
        if plain and "\\" not in name:
            path = self._folder.joinpath(*parts)
            known = path.suffix in CONTENT_TYPES and os.path.isfile(path)  # a name may be too long
            # A link in the folder does not lead out of it.
            if known and path.resolve().is_relative_to(self._folder):
                return path
        raise ApiError(404, "there is no such file of the page")

    def _read(self, path: Path) -> _File:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        file = self._kept.get(path)
        if file is None or file.stamp != stamp:
            content = path.read_bytes()
            if path.suffix in SQUEEZED:
                content = squeezed(content.decode("utf-8"), path.suffix).encode("utf-8")
            elif path.suffix == ".md":
                content = manual.page(content.decode("utf-8"), path.name).encode("utf-8")
            packed = None
            if path.suffix not in _PACKED and len(content) >= WORTH_PACKING:
                packed = gzip.compress(content, _LEVEL, mtime=0)
            file = _File(stamp, content, packed, tag_of(content))
            self._kept[path] = file
        return file


def tag_of(content: bytes) -> str:
    """Returns the ETag of a content: weak, because it is sent packed or not."""
    return f'W/"{hashlib.sha256(content).hexdigest()[:24]}"'


def is_known(request: Request, tag: str) -> bool:
    """Returns whether the client says that it has the version with an ETag."""
    known = [word.strip() for word in request.headers.get("if-none-match", "").split(",")]
    plain = tag.removeprefix("W/")
    return any(word in ("*", tag, plain, f"W/{plain}") for word in known)


def takes_gzip(request: Request) -> bool:
    """Returns whether the client takes content that is compressed by gzip."""
    for word in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = word.partition(";")
        if coding.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
