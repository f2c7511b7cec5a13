"""Describes what is refused or has failed, as OpenAI's clients read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

RETRY_AFTER_SECONDS = 1

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    410: "not_found_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
# Clients send a request again on their own after some of these statuses.
_RETRIED = (429, 503)
_FINAL = (400, 413)
STATUSES = {
    400: "A field or the JSON is wrong; `param` names the field.",
    401: "The bearer token is missing or wrong.",
    403: "The Host header names another host.",
    404: "There is no such model, step, array or path.",
    405: "The path has no such method.",
    408: "The body does not arrive in time, or the answer is read too slowly.",
    410: "The explorer's run is not in memory any more.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not declared as application/json in UTF-8, or is compressed.",
    429: "Too much waits already; Retry-After says when to come again.",
    500: "The server failed; its log has the reason, and later requests are served.",
    503: "The model takes no requests now; Retry-After says when to come again.",
    504: "The request waited too long for its turn.",
}
"""What each status of an error means."""


class ApiError(Exception):
    """Reports a request that gets no answer: a status, and a body that says why.

    Attributes:
      status: of HTTP.
      message: one line, which names the field, the value and the range.
      param: the field that is wrong, if one is.
      code: what a program can compare.
      counts: the numbers in the message by name, for who says it in other words.
      headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        counts: Mapping[str, int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Takes the parts; headers about caches, and about sending it again, are added."""
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.counts = counts
        # A browser may keep 404 and 410 as if they would hold for ever.
        self.headers = {"cache-control": "no-store", **(headers or {})}
        if status in _RETRIED:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
        if status in _FINAL:
            self.headers["x-should-retry"] = "false"

    def body(self) -> dict[str, Any]:
        """Returns what the client gets."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": _TYPES.get(self.status, "server_error"),
            "param": self.param,
            "code": self.code,
        }
        if self.counts:
            error["counts"] = {**self.counts}
        return {"error": error}


def wrong(name: str | None, message: str, **counts: int) -> ApiError:
    """Returns the error of status 400 about a field, or about an entry such as `prompt[3]`."""
    param = name and name.partition("[")[0]
    return ApiError(400, message, param=param, code="invalid_value", counts=counts)


def too_long(name: str, message: str, **counts: int) -> ApiError:
    """Returns the error of status 400 about a text that has no room; see `wrong`, `ApiError`."""
    return ApiError(
        400,
        message,
        param=name.partition("[")[0],
        code="context_length_exceeded",
        counts=counts,
    )


def to_json(value: Any) -> bytes:
    """Returns JSON of ASCII characters only, which no reader of lines can cut at U+2028.

    Raises:
      ValueError: if a number is not finite.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
