"""Tests the page's files without a browser: sizes, texts of both languages, the tour's stops."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "gpt2_jax/serve/static"
FILES = [path for path in FOLDER.rglob("*") if path.suffix in (".js", ".css", ".html", ".json")]
MOST_BYTES, MOST_PACKED = 260_000, 110_000


def _json(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_the_page_is_small() -> None:
    contents = [path.read_bytes() for path in FILES]
    assert sum(map(len, contents)) <= MOST_BYTES
    assert sum(len(gzip.compress(content, 9)) for content in contents) <= MOST_PACKED


def test_both_languages_have_the_same_texts_with_the_same_places() -> None:
    texts = {language: _json(f"i18n/{language}.json") for language in ("en", "zh")}
    assert list(texts["en"]) == list(texts["zh"])
    for key, text in texts["en"].items():
        places = [sorted(re.findall(r"\{(\w+)\}", each)) for each in (text, texts["zh"][key])]
        assert places[0] == places[1], key
        assert text.strip() and texts["zh"][key].strip(), key


def test_every_text_that_the_page_asks_for_is_there() -> None:
    known = set(_json("i18n/en.json"))
    code = {path: path.read_text(encoding="utf-8") for path in FILES if path.suffix == ".js"}
    for path, text in code.items():
        for key in re.findall(r"""\bapp\.t\("([^"]+)\"""", text):
            assert key in known, f"{path.name}: {key}"
    ids = re.findall(r'export const id = "(\w+)"', "".join(code.values()))
    assert len(ids) >= 25
    sections = {path.stem for path in (FOLDER / "sections").glob("*.js")} - {"index"}
    for name in ids:
        assert f"{name}.title" in known
        assert name not in sections or f"{name}.text" in known


def test_the_tour_is_the_same_in_both_languages() -> None:
    tours = {language: _json(f"tour/{language}.json") for language in ("en", "zh")}
    places = [[(stop["at"], stop["set"]) for stop in tour] for tour in tours.values()]
    assert places[0] == places[1]
    assert len(places[0]) >= 17
    for tour in tours.values():
        for stop in tour:
            assert (FOLDER / "sections" / f"{stop['at']}.js").exists()
            assert stop["title"] and len(stop["text"]) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_file_names_no_other_address(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.[a-z]", text)
