"""Tests that the documents to which the explorer's sections lead are served as pages."""

from __future__ import annotations

import re

from gpt2_jax.serve import manual
from tests.serve.serving import Client

SECTIONS = manual.DOCS.parent / "static/sections"


def test_a_document_becomes_a_page_with_its_anchors_and_tables() -> None:
    page = manual.page('# A & B\n\n<a id="x"></a>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n', "a.zh.md")
    assert "<title>A &amp; B</title>" in page and 'lang="zh-Hans"' in page
    assert '<a id="x"></a>' in page and "<td>2</td>" in page
    assert 'lang="en"' in manual.page("no title", "b.md")


def test_every_section_leads_to_an_anchor_of_both_documents() -> None:
    names = {path.stem for path in SECTIONS.glob("*.js")} - {"index"}
    for name in ("how_gpt2_works.md", "how_gpt2_works.zh.md"):
        page = manual.page((manual.DOCS / name).read_text(encoding="utf-8"), name)
        assert names <= {*re.findall(r'<a id="(\w+)">', page)}


def test_documents_are_served_and_nothing_beside_them(client: Client) -> None:
    reply = client.get("/docs/how_gpt2_works.md")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'<a id="scores"></a>' in reply.body
    for path in ("/docs/none.md", "/docs/../README.md", "/docs/", "/docs/how_gpt2_works.ipynb"):
        assert client.get(path).status == 404
