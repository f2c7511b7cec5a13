"""Tests that the page is read by keyboard and by screen readers, at any width, in both colors."""

from __future__ import annotations

from typing import Any

import pytest

from tests.page.window import Window

pytestmark = pytest.mark.chromium
SECTIONS = (
    "prompt", "embedding", "journey", "layernorm", "qkv", "scores", "mask", "softmax", "weighted",
)  # fmt: skip


def test_the_keyboard_alone_reaches_every_number(window: Window) -> None:
    press = window.page.keyboard.press
    press("Tab")
    assert window.page.evaluate("document.activeElement.id") == "skip"
    window.page.locator("#text").focus()
    window.page.keyboard.type("!")
    window.until("explorer.run.tokens.at(-1).text === '!' && !explorer.busy")
    last = window.page.evaluate("explorer.run.tokens.length") - 1
    # One stop for all tokens; the arrows move among them, and the query with them.
    for _ in range(9):
        press("Tab")
        if window.page.evaluate("document.activeElement.matches('#tokens .token')"):
            break
    press("ArrowLeft")
    window.until(f"explorer.state.query === {last - 1}")
    press("ArrowLeft")
    window.until(f"explorer.state.query === {last - 2}")
    focused = "[...document.activeElement.parentNode.children].indexOf(document.activeElement)"
    window.until(f"{focused} === {last - 2}")
    # They go on from a clicked one, drawn or not.
    window.page.evaluate("""() => {
      const token = document.querySelectorAll('#tokens .token')[1];
      token.click();
      token.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
    }""")
    assert window.state("query") == 2
    window.until(f"{focused} === 2")
    press("Tab")
    assert not window.page.evaluate("document.activeElement.matches('#tokens .token')")
    # A matrix is one stop, too; its cells are told, and opened by Enter.
    window.show("scores", "#score-map[aria-label]").focus()
    press("ArrowUp")
    window.until("document.querySelector('#live').textContent.startsWith('query')")
    press("Enter")
    window.until("!document.querySelector('#panel').hidden")
    assert window.page.evaluate("document.activeElement.id") == "panel-title"
    assert "max" not in window.page.locator("#panel .formula").inner_text()
    press("Escape")
    window.until("document.querySelector('#panel').hidden")
    assert window.page.evaluate("document.activeElement.id") == "score-map"


@pytest.mark.parametrize("colors", ["light", "dark"])
def test_axe_finds_nothing_serious(window: Window, browser: Any, colors: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with Window.opened(browser, window.port, color_scheme=colors) as seen:
        seen.scroll(*SECTIONS)
        seen.show("scores", "#score").click()
        seen.until("!document.querySelector('#panel').hidden")
        found = Axe().run(seen.page).response["violations"]
        told = [
            (each["id"], node["html"][:120], node["failureSummary"][:200])
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"][:3]
        ]
        assert not told


@pytest.mark.parametrize("width", [360, 820, 1280])
def test_no_width_scrolls_the_page_sideways(window: Window, browser: Any, width: int) -> None:
    viewport = {"width": width, "height": 740}
    with Window.opened(browser, window.port, viewport=viewport) as seen:
        seen.type("a🙂b שלום עולם 漢字" + " x" * 20)
        seen.scroll(*SECTIONS)
        page = "document.documentElement"
        assert seen.page.evaluate(f"{page}.scrollWidth - {page}.clientWidth") == 0
        # Nor is a part of the menu beyond an edge, to be found by scrolling it.
        buttons = "[...document.querySelectorAll('#top button')]"
        edges = f"{buttons}.map((button) => button.getBoundingClientRect().right)"
        assert max(seen.page.evaluate(edges)) <= width
        assert not seen.errors


def test_chinese_is_chosen_by_the_browser_or_by_hand(window: Window, browser: Any) -> None:
    with Window.opened(browser, window.port, locale="zh-CN") as seen:
        seen.until("document.documentElement.lang === 'zh-Hans'")
        assert "词元" in seen.page.locator("h2").first.inner_text()
        seen.page.locator("#language").select_option("en")
        seen.until("document.documentElement.lang === 'en'")
        assert "token" in seen.page.locator("h2").first.inner_text()


def test_colors_are_switched_and_kept_in_the_link(window: Window) -> None:
    def ground() -> str:
        return window.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")

    before = ground()
    window.page.locator("header .icon").click()
    window.until("explorer.state.theme === 'dark'")
    assert ground() != before
