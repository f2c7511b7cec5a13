"""Puts the repository's own files into the documentation site, without copying them.

A hook of MkDocs, which by itself sees only `docs/`. Here a page's source path is its path in the
repository, so that the relative links which work on the repository's web page work in the site,
too, and MkDocs checks them. What pages link to is added: Markdown as pages, pictures as they are,
modules of the package as pages of mkdocstrings, other texts as pages that show them.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from generated import expanded, listing, notebook, records

if TYPE_CHECKING:  # so that tests need no MkDocs
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import File, Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
STARTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "launch/README.md", "configs")
"""What the menu has outside of docs/ and of the records."""
_RECORDS = "docs/records.md"
_AS_IT_IS = (
    *(".png", ".svg", ".jpg", ".gif", ".pdf", ".mid", ".wav"),
    *(".html", ".css", ".js", ".csv"),
)
_PLACES = (("docs/", ""), ("experiments/records/", "records/"))
_LINK = re.compile(r"(\[(?:[^\[\]]|\[[^\[\]]*\])*\])\(([^()\s]+)\)")
_FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2`*$", re.MULTILINE | re.DOTALL)
_OUTSIDE = re.compile(r'<(?:script|img|link|iframe)\b[^>]*(?:src|href)="((?:https?:)?//[^"]*)"')
_ANCHOR = re.compile(r'^<a id="([\w-]+)"></a>\n+(#+ .*)$', re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the records behind the page that lists them."""
    for section in config.nav or []:
        for pages in section.values():
            if isinstance(pages, list) and _RECORDS in pages:
                pages += [f"{record}/README.md" for record in records(ROOT)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replaces the files of docs/ by the same at their paths in the repository, and adds others."""
    here = [file for file in files if file.src_dir == config.docs_dir]
    for file in here:
        files.remove(file)
    found = [f"docs/{file.src_uri}" for file in here if not file.src_uri.endswith((".py", ".pyc"))]
    found += [*STARTS, *(f"{record}/README.md" for record in records(ROOT))]
    added: set[str] = set()
    while found:
        path = found.pop()
        if path not in added and (ROOT / path).exists():
            added.add(path)
            file = _file(path, config)
            files.append(file)
            if file.src_uri.endswith(".md"):
                found += linked(expanded(file.content_string, ROOT), file.src_uri)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns a page's text with generated parts, and with links to where files are in the site."""
    path = page.file.src_uri
    if path == "README.md":  # alone in its part of the menu
        page.meta["hide"] = ["navigation"]
    if path.startswith("gpt2_jax/"):
        page.meta["title"] = path.removesuffix(".md")
        page.meta["search"] = {"boost": 0.5}  # behind the guides
    # The heading itself gets the name that links use, so that the table of contents uses it, too.
    text = _ANCHOR.sub(r"\2 { #\1 }", expanded(markdown, ROOT))
    return linked_to_pages(text, path, files.src_uris)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warns of what a page loads from elsewhere, and says what screen readers should know."""
    for address in _OUTSIDE.findall(output):
        # Below this name, MkDocs counts warnings, which its --strict turns into an error.
        logging.getLogger("mkdocs.hooks").warning("%s loads %s", page.file.src_uri, address)
    output = output.replace('role="dialog"', 'role="dialog" aria-label="Search"', 1)
    if page.file.src_uri.endswith(".zh.md"):
        return output.replace('<html lang="en"', '<html lang="zh-Hans"', 1)
    return output


def linked_to_pages(text: str, path: str, pages: Container[str]) -> str:
    """Returns a page's text with links to files led to the pages that show these.

    Args:
      text: Markdown.
      path: of the page in the repository.
      pages: the source paths of the site's files.
    """

    def moved(match: re.Match[str]) -> str:
        target, anchor = _resolved(match[2], path)
        if target is None or target in pages or f"{target}.md" not in pages:
            return match[0]
        name = match[1].strip("[]`")
        if not anchor and name.startswith("gpt2_jax.") and target.endswith(".py"):
            anchor = f"#{name}"  # a function on the page of its module
        place = posixpath.relpath(f"{target}.md", posixpath.dirname(path) or ".")
        return f"{match[1]}({place}{anchor})"

    return _outside_code(text, lambda part: _LINK.sub(moved, part))


def _file(path: str, config: MkDocsConfig) -> File:
    """Returns the site's file for a path in the repository."""
    from mkdocs.structure.files import File

    if path.endswith(".md") or path.endswith(_AS_IT_IS):
        file = File.generated(config, path, abs_src_path=str(ROOT / path))
    else:
        file = File.generated(config, f"{path}.md", content=shown(path))
        if not path.endswith(".ipynb"):
            place = path.removesuffix(".py") if path.startswith("gpt2_jax/") else path
            file.dest_uri = f"reference/{place}.html"
            return file
    if path.endswith("/report.html"):  # where the page of report.md is
        file.dest_uri = file.dest_uri.replace("report.html", "curves.html")
    for folder, place in _PLACES:
        if path.startswith(folder):
            file.dest_uri = place + file.dest_uri.removeprefix(folder)
    return file


def shown(path: str) -> str:
    """Returns the text of the page that shows a file or a folder."""
    full = ROOT / path
    if full.is_dir():
        return listing(full)
    if path.endswith(".ipynb"):
        return notebook(full)
    if path.startswith("gpt2_jax/") and path.endswith(".py"):
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return f"::: {module}\n    options: {{heading_level: 1, show_root_full_path: true}}\n"
    kind = {".py": "python", ".sh": "sh", ".yaml": "yaml", ".json": "json"}.get(full.suffix, "text")
    text = full.read_text(encoding="utf-8")
    return f"# {full.name}\n\n`{path}`\n\n````{kind}\n{text.rstrip()}\n````\n"


def linked(text: str, path: str) -> Iterator[str]:
    """Yields the paths in the repository that the text of a page links to."""
    for _, link in _LINK.findall(_FENCE.sub("", text)):
        target, _ = _resolved(link, path)
        if target is not None:
            yield target


def _resolved(link: str, path: str) -> tuple[str | None, str]:
    """Returns the path in the repository that a link of a page names, or None, and its anchor."""
    place, hash, anchor = link.partition("#")
    if not place or "://" in link or link.startswith(("/", "mailto:")):
        return None, ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), place))
    exists = not target.startswith("..") and (ROOT / target).exists()
    return (target if exists else None), hash + anchor


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """Returns a text of Markdown with a change made to all but its fenced code."""
    parts, start = [], 0
    for match in _FENCE.finditer(text):
        parts += [change(text[start : match.start()]), match[0]]
        start = match.end()
    return "".join([*parts, change(text[start:])])
