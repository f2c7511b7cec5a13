"""Tests what a visit loads: few files at first, little of a long text, and the rest when near."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gpt2_jax.interpret.views import find
from tests.page.conftest import CONTEXT
from tests.page.test_files import FIRST_BYTES, FIRST_PACKED, FOLDER, first_files
from tests.page.window import Window
from tests.serve.serving import Client

pytestmark = pytest.mark.chromium
_GPT2 = {"L": 12, "H": 12, "K": 64, "D": 768, "F": 3072, "V": 50257, "T": 1024, "2L+1": 25, "n": 32}
_LOADED = """
[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .map((entry) => [new URL(entry.name).pathname, entry.encodedBodySize, entry.decodedBodySize])
"""


def _loaded(window: Window) -> list[tuple[str, int, int]]:
    """Returns (path, bytes that were sent, bytes that they hold) of all that was loaded."""
    window.page.wait_for_load_state("networkidle")
    return [(path, packed, plain) for path, packed, plain in window.page.evaluate(_LOADED)]


def test_a_first_visit_loads_the_first_view_alone(window: Window) -> None:
    window.show("prompt", "#next .word")
    files = [entry for entry in _loaded(window) if not entry[0].startswith("/explore/")]
    names = {path.removeprefix("/static/").removeprefix("/") or "index.html" for path, *_ in files}
    assert names == {path.relative_to(FOLDER).as_posix() for path in first_files()}
    assert sum(plain for *_, plain in files) <= FIRST_BYTES
    assert sum(packed for _, packed, _ in files) <= FIRST_PACKED


def test_the_first_view_of_a_long_text_moves_little(window: Window, browser: Any) -> None:
    window.page.evaluate(f"explorer.state.text = 'it was so '.repeat(103).slice(0, {CONTEXT})")
    fragment = "#" + window.page.evaluate("explorer.link()").partition("#")[2]
    with Window.opened(browser, window.port, fragment) as seen:
        assert seen.page.locator("#tokens .token").count() == CONTEXT == 1024
        assert _moved(seen) <= 300_000
        seen.show("journey", "svg")
        assert _moved(seen) <= 400_000
        assert not seen.errors


def _moved(window: Window) -> int:
    """Returns the bytes of the summary, and of all arrays that were asked for, as of GPT-2 124M."""
    total, files = 0, []
    for path, packed, _ in _loaded(window):
        if path.endswith("/run"):
            total += packed
        elif path.endswith(".npy"):
            view, _ = find(path.split("/run/")[1].partition("/")[2].removesuffix(".npy"))
            sizes = [_GPT2.get(x) or int(x) for x in view.shape[1:-1].split(", ")]
            total += math.prod(sizes) * (1 if view.dtype == "uint8" else 4)
            files.append(view.address)
    assert "embedding/{t}" in files
    return total


def _behind_a_key(browser: Any, port: int) -> Window:
    """Opens the page of a server that wants the key "right"."""
    window = Window(browser.new_context(locale="en-US").new_page(), port)

    def guard(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer right":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": {"message": "this server wants a key"}})

    window.page.route("**/explore/v1/**", guard)
    window.page.goto(f"http://127.0.0.1:{port}/")
    window.until("document.querySelector('dialog').open")
    assert "asks for an API key" in window.page.locator("dialog").inner_text()
    return window


def test_a_key_is_asked_for_until_it_is_right_and_kept(browser: Any, served: Client) -> None:
    window = _behind_a_key(browser, served.port)
    window.page.locator("#key").fill("wrong")
    window.page.keyboard.press("Enter")
    window.until("document.querySelector('dialog')?.innerText.includes('does not know this key')")
    window.page.locator("#key").fill("right")
    window.page.keyboard.press("Enter")
    window.until("Boolean(explorer.run) && !document.querySelector('dialog').open")
    window.page.reload()
    window.until("Boolean(globalThis.explorer?.run)")
    window.page.evaluate("sessionStorage.setItem('key', 'old')")
    window.page.evaluate("['norms', 'thumbs'].forEach((address) => explorer.get(address))")
    window.until("document.querySelector('dialog').open")  # once for both
    window.page.locator("#key").fill("right")
    window.page.keyboard.press("Enter")
    window.until("!document.querySelector('dialog').open")
    window.until("explorer.arrays().then((arrays) => arrays.length > 1)")
    assert not window.errors
    window.page.context.close()


def test_without_a_key_the_page_says_what_is_wanted(browser: Any, served: Client) -> None:
    window = _behind_a_key(browser, served.port)
    while not window.page.locator(".notice:visible").count():  # it is asked for the run, too
        window.page.keyboard.press("Escape")
        window.page.wait_for_timeout(50)
    assert window.page.locator(".notice").inner_text() == "This server wants a key."
    window.page.context.close()


def test_a_section_is_busy_until_it_is_drawn(window: Window) -> None:
    window.page.route("**/static/sections/mlp.js", lambda route: None)  # never answered
    assert window.page.locator("#mlp").get_attribute("aria-busy") is None
    window.page.locator("#mlp").scroll_into_view_if_needed()
    window.until("document.querySelector('#mlp').ariaBusy === 'true'")
    window.until("document.querySelector('#merged').ariaBusy !== 'true'")
    assert window.page.locator("#mlp .body").inner_text() == ""
    window.page.locator("#logits").scroll_into_view_if_needed()
    window.until("document.querySelector('#logits').ariaBusy === 'false'")


def test_a_section_leads_to_its_part_of_the_docs(window: Window) -> None:
    link = window.page.locator("#prompt .docs a")
    with window.page.context.expect_page() as opened:
        link.click()
    other = opened.value
    other.wait_for_load_state()
    assert other.url.endswith("/docs/how_gpt2_works.md#prompt")
    assert "tokens" in other.locator("p:has(#prompt) + h3").inner_text().lower()
    assert other.evaluate("scrollY") > 0
    other.close()
