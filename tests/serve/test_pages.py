"""Tests that the page's files are served, squeezed, and that nothing else is."""

from __future__ import annotations

import gzip
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from gpt2_jax.serve.errors import ApiError
from gpt2_jax.serve.pages import CONTENT_TYPES, FOLDER, Pages
from gpt2_jax.serve.squeeze import SQUEEZED, squeezed
from tests.serve.serving import Client, serving, tiny_model

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    static = tmp_path / "static"
    (static / "core").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html>" + "a" * 2000)
    (static / "core" / "a.js").write_text("export {};" * 200)
    (static / "small.json").write_text("{}")
    (static / "dot.png").write_bytes(b"\x89PNG" + b"0" * 2000)
    (static / ".hidden.js").write_text("secret")
    (static / "code.py").write_text("secret")
    (tmp_path / "secret.js").write_text("secret")
    (static / "link.js").symlink_to(tmp_path / "secret.js")
    return static


def _ask(pages: Pages, name: str = "index.html", **headers: str) -> Response:
    raw = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "headers": raw}
    return pages.answer(Request(scope), name)


def test_files_have_their_types_and_are_packed_where_it_helps(folder: Path) -> None:
    pages = Pages(folder)
    for name, kind, packed in (
        ("index.html", "text/html; charset=utf-8", True),
        ("core/a.js", "text/javascript; charset=utf-8", True),
        ("small.json", "application/json", False),
        ("dot.png", "image/png", False),
    ):
        content = (folder / name).read_bytes()
        plain = _ask(pages, name)
        assert (plain.body, plain.headers["content-type"]) == (content, kind)
        assert "content-encoding" not in plain.headers
        zipped = _ask(pages, name, accept_encoding="br, gzip;q=0.5")
        assert ("content-encoding" in zipped.headers) == packed
        assert (gzip.decompress(zipped.body) if packed else zipped.body) == content
        assert len(zipped.body) == int(zipped.headers["content-length"])
        for refused in ("gzip;q=0", "br", ""):
            assert _ask(pages, name, accept_encoding=refused).body == content
        assert plain.headers["vary"] == "accept-encoding"
        assert plain.headers["x-content-type-options"] == "nosniff"


def test_a_file_is_sent_again_only_when_it_has_changed(folder: Path) -> None:
    pages = Pages(folder)
    tag = _ask(pages).headers["etag"]
    for known in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
        reply = _ask(pages, if_none_match=known)
        assert (reply.status_code, reply.body, reply.headers["etag"]) == (304, b"", tag)
        assert "content-security-policy" in reply.headers
    assert _ask(pages, if_none_match='"x"').status_code == 200
    (folder / "index.html").write_text("<!doctype html>new")
    os.utime(folder / "index.html", ns=(1, 1))
    reply = _ask(pages, if_none_match=tag)
    assert (reply.status_code, reply.body) == (200, b"<!doctype html>new")
    assert reply.headers["etag"] != tag


@pytest.mark.parametrize(
    "name",
    [
        "../secret.js",
        "core/../../secret.js",
        "core/../index.html",
        "/etc/passwd",
        "//index.html",
        "core//a.js",
        "core\\a.js",
        "..\\secret.js",
        "link.js",
        ".hidden.js",
        "code.py",
        "core",
        "core/",
        "",
        "index.html/",
        "index.html\x00.js",
        "none.js",
        "a" * 5000 + ".js",
    ],
)
def test_nothing_but_the_files_of_the_page_is_served(folder: Path, name: str) -> None:
    with pytest.raises(ApiError) as refused:
        _ask(Pages(folder), name)
    assert refused.value.status == 404


def test_every_file_of_the_page_has_a_known_type() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {*CONTENT_TYPES}, files
    for path in files:
        sent = bytes(_ask(Pages(), path.relative_to(FOLDER).as_posix()).body)
        if path.suffix in SQUEEZED:
            assert sent.decode("utf-8") == squeezed(path.read_text("utf-8"), path.suffix)
        else:
            assert sent == path.read_bytes()


def test_the_page_is_served_and_may_load_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.body == (FOLDER / "index.html").read_bytes()
    policy = dict(
        rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert policy["frame-ancestors"] == "'none'"
    assert not any("unsafe" in rule or "http" in rule for rule in policy.values())
    assert client.get("/static/index.html").body == page.body
    for path in ("/static/../pages.py", "/static/%2e%2e/pages.py", "/static/..%2fpages.py"):
        assert client.get(path).status == 404
    assert client.send("POST", "/").status == 405


@pytest.mark.slow
def test_a_server_without_the_explorer_has_no_page() -> None:
    with serving(tiny_model(), explored=False) as client:
        for path in ("/", "/static/index.html", "/explore/v1/models"):
            assert client.get(path).status == 404
        described = client.get("/openapi.json").json["paths"]
        assert not [path for path in described if "explore" in path or "static" in path]
        assert client.complete()["choices"]


def test_a_wheel_has_every_file_of_the_page() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["gpt2_jax.serve"]
    packed = {path for pattern in patterns for path in FOLDER.parent.glob(pattern)}
    assert {path for path in FOLDER.rglob("*") if path.is_file()} <= packed
