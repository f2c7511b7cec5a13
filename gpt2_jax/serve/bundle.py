"""Makes one HTML file of the page's files, which opens from a disk and asks for nothing.

Modules become data: URLs in an import map under bare names, because a data: URL has no folder that
a relative import could start from. A Content-Security-Policy lets the file load nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2_jax.serve.squeeze import squeezed

_IMPORT = re.compile(r"""((?:\bfrom|\bimport)\s*\(?\s*)(["'])(\.{1,2}/[^"']+)\2""")
_STYLE = re.compile(r"""<link\b[^>]*\brel=["']?stylesheet["']?[^>]*>""", re.IGNORECASE)
_SCRIPT = re.compile(r"""<script\b[^>]*\bsrc=["']([^"']+)["'][^>]*>\s*</script>""", re.IGNORECASE)
_OTHER = re.compile(r"""<link\b[^>]*>|<meta\b[^>]*http-equiv[^>]*>""", re.IGNORECASE)
_HREF = re.compile(r"""\bhref=["']([^"']+)["']""", re.IGNORECASE)
_PREFIX = "gpt2_jax/"


def bundle(folder: Path, embedded: Mapping[str, Any], language: str) -> bytes:
    """Returns the page as one file.

    Args:
      folder: of the page, with index.html in it.
      embedded: what the file holds beside the page, as the element `lesson`; the page's JSON files
        are added to it as `json`.
      language: of the page's element `html`.

    Raises:
      ValueError: if the page uses something that has no place in a single file.
    """
    modules = {
        path.relative_to(folder).as_posix(): squeezed(path.read_text(encoding="utf-8"), ".js")
        for path in sorted(folder.rglob("*.js"))
    }
    files = {
        path.relative_to(folder).as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.json"))
    }
    page = (folder / "index.html").read_text(encoding="utf-8")
    styles = "\n".join(
        squeezed((folder / _name(_href(link))).read_text(encoding="utf-8"), ".css")
        for link in _STYLE.findall(page)
    )
    entries = [_name(source) for source in _SCRIPT.findall(page)]
    map_ = json.dumps({"imports": {_PREFIX + name: _url(modules, name) for name in modules}})
    start = "".join(f'import "{_PREFIX}{entry}";' for entry in entries)
    page = _SCRIPT.sub("", _OTHER.sub("", _STYLE.sub("", page)))
    page = re.sub(r'(<html\b[^>]*\blang=)["\'][^"\']*["\']', rf'\g<1>"{language}"', page)
    data = _json({**embedded, "json": files})
    head = f'<meta http-equiv="Content-Security-Policy" content="{_policy([map_, start], styles)}">'
    head += f'<meta name="referrer" content="no-referrer"><style>{styles}</style>'
    tail = f'<script type="application/json" id="lesson">{data}</script>'
    tail += f'<script type="importmap">{map_}</script><script type="module">{start}</script>'
    # The policy is in front of everything that it is about.
    page = _put(page, r"<head[^>]*>(\s*<meta charset=[^>]*>)?", head, behind=True)
    return _put(page, r"</body>", tail, behind=False).encode("utf-8")


def _put(page: str, pattern: str, text: str, *, behind: bool) -> str:
    match = re.search(pattern, page, re.IGNORECASE)
    if match is None:
        raise ValueError(f"index.html has no {pattern}")
    at = match.end() if behind else match.start()
    return page[:at] + text + page[at:]


def _href(link: str) -> str:
    match = _HREF.search(link)
    if match is None:
        raise ValueError(f"{link} names no file")
    return match[1]


def _name(address: str) -> str:
    """Returns the name in the folder of a file that index.html refers to."""
    name = address.removeprefix("./").removeprefix("/").removeprefix("static/")
    if ":" in name or name.startswith(("/", "..")):
        raise ValueError(f"{address} is no file of the page")
    return name


def _url(modules: Mapping[str, str], name: str) -> str:
    """Returns a module as a data: URL, in which relative imports have become bare names."""
    source = modules[name]
    if "import.meta" in source:
        raise ValueError(f"{name} uses import.meta, which a module without an address has not")

    def bare(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[3]))
        if target not in modules:
            raise ValueError(f"{name} imports {match[3]}, which is no module of the page")
        return f"{match[1]}{match[2]}{_PREFIX}{target}{match[2]}"

    # The name is what a browser shows in place of the URL.
    named = f"{_IMPORT.sub(bare, source)}\n//# sourceURL={_PREFIX}{name}\n"
    content = base64.b64encode(named.encode("utf-8")).decode("ascii")
    return f"data:text/javascript;base64,{content}"


def _policy(scripts: list[str], styles: str) -> str:
    hashes = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src data: {hashes}; style-src {_hash(styles)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _json(value: Any) -> str:
    """Returns JSON that an HTML element can hold: nothing in it ends the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
