"""Drops what only people read in the page's files, so that a visit loads less.

The files are written so that this is simple, and tests hold it: no string or template of JavaScript
goes on in another line. Comments that share a line with code stay. Lines of JavaScript are joined
only behind a sign after which the end of a line means nothing.
"""

from __future__ import annotations

import json
import re

SQUEEZED = (".css", ".js", ".json")
"""What is squeezed."""
_INDENTS_AND_COMMENTS = re.compile(r"^[ \t]*(?://.*)?\n|^[ \t]+", re.MULTILINE)
_JOINED = re.compile(r"^((?:(?!//).)*[,;({\[])\n", re.MULTILINE)
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_CSS_SPACE = re.compile(r"\s*([{};,>])\s*|(?<=[\w-]):\s+")


def squeezed(text: str, suffix: str) -> str:
    """Returns a file's text, which means the same, without comments and needless whitespace.

    Args:
      text: of the file.
      suffix: of its name, one of `SQUEEZED`.
    """
    if suffix == ".js":
        return _JOINED.sub(r"\1", _INDENTS_AND_COMMENTS.sub("", text))
    if suffix == ".json":
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    bare = _CSS_COMMENT.sub("", text)
    return _CSS_SPACE.sub(lambda match: match[1] or ":", bare).strip()
