"""Tests the tour, exports, and access of the later sections and the panels."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from tests.page.window import Window

pytestmark = pytest.mark.chromium
TEXT = "it was, and it is"
SECTIONS = (
    "merged", "projection", "mlp", "residual", "logits", "sampling", "appended", "cache",
    "training",
)  # fmt: skip
PANELS = ("card", "steps", "compare", "interventions", "engine", "export")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_tour_goes_to_its_end_by_keyboard(window: Window, language: str) -> None:
    window.set(language=language)
    stops = json.loads(
        (Path(__file__).parents[2] / f"gpt2_jax/serve/static/tour/{language}.json").read_text(
            encoding="utf-8"
        )
    )
    window.page.locator("#tour").focus()
    window.page.keyboard.press("Enter")
    for i, stop in enumerate(stops):
        window.until(f"document.querySelector('#guide-title')?.textContent === {stop['title']!r}")
        assert window.state("tour") == i
        window.until(f"document.querySelector('.toured')?.id === {stop['at']!r}")
        for name, value in stop["set"].items():
            assert window.state(name) == value
        window.until("!explorer.busy")
        window.scroll(stop["at"])
        assert not window.page.locator(f"#{stop['at']} .error:visible").count()
        window.page.keyboard.press("ArrowRight")
    window.until("document.querySelector('#guide').hidden && explorer.state.tour === null")
    assert window.page.evaluate("document.activeElement.id") == "tour"


def test_escape_ends_the_tour_and_a_link_opens_at_its_stop(window: Window, browser: Any) -> None:
    window.page.locator("#tour").click()
    window.until("!document.querySelector('#guide').hidden")
    for _ in range(3):
        window.page.get_by_role("button", name="Next", exact=True).click()
    window.until("explorer.state.tour === 3")
    link = window.page.evaluate("explorer.link()")
    with Window.opened(browser, window.port, "#" + link.partition("#")[2]) as other:
        other.until("document.querySelector('.toured')?.id === 'layernorm'")
    window.page.locator("#guide-title").focus()
    window.page.keyboard.press("Escape")
    window.until("document.querySelector('#guide').hidden && explorer.state.tour === null")


def _saved(window: Window, kind: str) -> bytes:
    with window.page.expect_download() as found:
        window.page.locator(f"[data-export={kind}]").click()
    return Path(found.value.path()).read_bytes()


def test_exports_hold_what_the_page_shows(window: Window, python: LanguageModel) -> None:
    window.type(TEXT)
    window.show("residual", "canvas")
    window.page.locator("[data-open=export]").click()
    select = window.page.locator("#export-view")
    window.until("document.querySelector('#export-view')?.options.length > 2")
    names = select.locator("option").all_inner_texts()
    select.select_option(
        index=next(i for i, name in enumerate(names) if name.startswith("residual"))
    )
    rows = list(csv.reader(io.StringIO(_saved(window, "csv").decode())))
    norms = python.inspect(TEXT)["norms"]
    np.testing.assert_allclose(np.array([row[1:] for row in rows[1:]], float), norms, rtol=1e-5)
    assert len(rows[0]) == len(TEXT) + 1
    drawing = ET.fromstring(_saved(window, "svg").decode())
    assert drawing.tag.endswith("svg")
    assert len(drawing.findall("{*}rect")) == norms.size + 1  # and the ground
    picture = _saved(window, "png")
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width = int.from_bytes(picture[16:20], "big")
    assert width == pytest.approx(2 * float(drawing.get("width", "0")), abs=2)
    saved = json.loads(_saved(window, "json"))
    assert (saved["version"], saved["state"]["text"]) == (1, TEXT)
    array = saved["arrays"]["norms"]
    np.testing.assert_allclose(np.reshape(array["data"], array["shape"]), norms, rtol=1e-5)


def test_a_lesson_opens_from_the_disk(window: Window, browser: Any, tmp_path: Path) -> None:
    window.type(TEXT)
    window.page.locator("[data-open=export]").click()
    path = tmp_path / "lesson.html"
    path.write_bytes(_saved(window, "lesson"))
    context = browser.new_context(offline=True, reduced_motion="reduce", locale="en-US")
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    other = Window(page, 0)
    other.until("Boolean(globalThis.explorer?.run)")
    assert page.evaluate("explorer.run.next") == window.page.evaluate("explorer.run.next")
    other.scroll(*SECTIONS)
    assert page.locator("#kept").inner_text().startswith("Kept: ")
    other.scroll("residual")
    other.until("document.querySelectorAll('#residual .read code').length >= 20")
    named = page.locator("#residual .read code").all_inner_texts()
    assert not [text for text in named if text.startswith("#") and len(text) > 1]
    assert not errors
    context.close()


@pytest.mark.parametrize(
    "kind",
    [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"locale": "zh-CN"}],
    ids=["light", "dark", "chinese"],
)
def test_axe_finds_nothing_serious(window: Window, browser: Any, kind: dict[str, str]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with Window.opened(browser, window.port, **kind) as seen:
        told = []
        seen.scroll(*SECTIONS)
        for panel in PANELS:
            seen.open(panel)
            # The sections are the same behind every panel.
            context = None if panel == PANELS[0] else "#panel"
            found = Axe().run(seen.page, context=context).response["violations"]
            told += [
                (panel, each["id"], node["html"][:160], node["failureSummary"][:300])
                for each in found
                if each["impact"] in ("serious", "critical")
                for node in each["nodes"][:3]
            ]
        assert not told, "\n".join(map(str, told))
        assert not seen.errors


@pytest.mark.parametrize("width", [360, 1280])
def test_no_section_or_panel_scrolls_the_page_sideways(
    window: Window, browser: Any, width: int
) -> None:
    with Window.opened(browser, window.port, viewport={"width": width, "height": 740}) as seen:
        seen.type("漢字 🙂 " + "word " * 12)
        page = "document.documentElement"
        for section in SECTIONS:
            seen.scroll(section)
            assert seen.page.evaluate(f"{page}.scrollWidth - {page}.clientWidth") == 0, section
        for panel in PANELS:
            seen.open(panel)
            assert seen.page.evaluate(f"{page}.scrollWidth - {page}.clientWidth") == 0, panel
        assert not seen.errors


def test_the_keyboard_alone_works_the_later_sections(window: Window) -> None:
    press = window.page.keyboard.press
    window.type(TEXT)
    window.show("sampling", "#sampling-temperature").focus()
    press("Home")
    window.until("explorer.state.sampling.temperature === 0")
    window.until("document.querySelector('#kept').innerText.startsWith('Kept: 1 of')")
    window.page.locator("#draw").focus()
    press("Enter")
    window.until("!document.querySelector('#append').disabled")
    press("Tab")
    assert window.page.evaluate("document.activeElement.id") == "append"
    press("Enter")
    window.until(f"!explorer.busy && explorer.run.tokens.length === {len(TEXT) + 1}")
    # The lens and the logits open their numbers.
    window.show("residual", ".lens button").first.focus()
    press("Enter")
    window.until("explorer.explained?.address.startsWith('lens/')")
    window.page.keyboard.press("Escape")
    window.show("logits", ".amounts button").nth(1).focus()
    press("Enter")
    window.until("document.querySelectorAll('#logits [aria-pressed=true]').length === 1")
