"""Tests the page's files without a browser: sizes, texts of both languages, the tour's stops."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.serve.squeeze import SQUEEZED, squeezed

FOLDER = Path(__file__).parents[2] / "gpt2_jax/serve/static"
FILES = [path for path in FOLDER.rglob("*") if path.suffix in (".js", ".css", ".html", ".json")]
MOST_BYTES, MOST_PACKED = 230_000, 95_000
"""As they are served: of all files together."""
FIRST_BYTES, FIRST_PACKED = 90_000, 38_000
"""Of what a visit loads until its first view is complete."""
KINDS = ("sections", "panels")
FIRST_SECTIONS = ("prompt", "embedding")
"""Those in the first view, or just below it."""


def _json(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def _sizes(paths: Iterable[Path]) -> tuple[int, int]:
    """Returns the bytes of files as they are served, plain and packed."""
    contents = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        served = squeezed(text, path.suffix) if path.suffix in SQUEEZED else text
        contents.append(served.encode("utf-8"))
    return sum(map(len, contents)), sum(len(gzip.compress(content, 9)) for content in contents)


def _with_imports(path: Path) -> set[Path]:
    """Returns a module and all that are loaded with it."""
    found, new = set(), {path}
    while new:
        found |= new
        texts = [(path.parent, path.read_text(encoding="utf-8")) for path in new]
        new = {
            (folder / name).resolve()
            for folder, text in texts
            for name in re.findall(r'^(?:import|\}) .*?from "(.+)";$', text, re.MULTILINE)
        } - found
    return found


def first_files() -> set[Path]:
    """Returns the files of the first view, in English."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    styles = {FOLDER / name for name in re.findall(r'href="static/(.+\.css)"', page)}
    modules = [FOLDER / "main.js", *(FOLDER / f"sections/{name}.js" for name in FIRST_SECTIONS)]
    alone = {FOLDER / "index.html", FOLDER / "i18n/en.json", *styles}
    return alone.union(*map(_with_imports, modules))


def test_the_page_is_small() -> None:
    plain, packed = _sizes(FILES)
    assert plain <= MOST_BYTES and packed <= MOST_PACKED


def test_a_first_visit_loads_little() -> None:
    files = first_files()
    plain, packed = _sizes(files)
    assert plain <= FIRST_BYTES and packed <= FIRST_PACKED
    assert len(files) > 20
    for name in ("panels/card.js", "core/tour.js", "core/picture.js", "sections/mlp.js"):
        assert FOLDER / name not in files


def test_code_can_be_read_and_squeezed() -> None:
    for path in FILES:
        if path.suffix == ".js":
            for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                assert len(line) <= 100, f"{path.name}:{i}"
                # No template goes on in another line, where its spaces would be lost.
                assert line.count("`") % 2 == 0 and not line.endswith("\\"), f"{path.name}:{i}"


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
        code_alone = re.sub(r"^ *//.*$", "", text, flags=re.MULTILINE)
        for key in re.findall(r"""\b(?:app\.t\(|t: |named: )"([\w.]+)\"""", code_alone):
            assert key in known, f"{path.name}: {key}"
    parts = {
        kind: {path.stem for path in (FOLDER / kind).glob("*.js")} - {"index"} for kind in KINDS
    }
    for kind, names in parts.items():
        index = (FOLDER / kind / "index.js").read_text(encoding="utf-8")
        assert {*re.findall(r'import\("./(\w+)\.js"\)', index)} == names
        for name in names:
            assert f"{name}.title" in known
            assert kind == "panels" or f"{name}.text" in known
    assert len(parts["sections"]) == 18


def test_every_text_is_asked_for() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in FILES if path.suffix == ".js")
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    made = {match.partition("$")[0] for match in re.findall(r"`(\w+\.[^`]*)`", code)}
    parts = "|".join({path.stem for kind in KINDS for path in (FOLDER / kind).glob("*.js")})
    for key in _json("i18n/en.json"):
        if re.fullmatch(rf"({parts})\.(title|text)", key):
            continue
        named = f'"{key}"' in code + html
        assert named or any(start and key.startswith(start) for start in made), key


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
