"""Makes pages of the documents in docs/, to which the explorer's sections lead."""

from __future__ import annotations

import html
import re
from pathlib import Path

from markdown_it import MarkdownIt

DOCS = Path(__file__).parent / "docs"
"""A link to the documents of the project, which are packed with the server."""
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="../static/style.css">
</head>
<body class="manual">
{body}</body>
</html>
"""


def page(text: str, name: str) -> str:
    """Returns a document as HTML.

    Args:
      text: in Markdown.
      name: of its file, whose end `.zh.md` says that it is Chinese.
    """
    title = _TITLE.search(text)
    return _PAGE.format(
        language="zh-Hans" if name.endswith(".zh.md") else "en",
        title=html.escape(title[1] if title else name),
        body=MarkdownIt("commonmark").enable("table").render(text),
    )
