"""Tests that what a reader does shows the model's numbers, as the Python API has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.interpret.interventions import Interventions
from tests.page.conftest import CONTEXT
from tests.page.window import Window

pytestmark = pytest.mark.chromium
TEXT = "it was, and it is"


def _next(window: Window) -> list[list[Any]]:
    """Returns [id, probability] of the listed next tokens, after a check of what is written."""
    window.show("prompt", "#next .word")
    window.page.wait_for_timeout(50)  # it is drawn with the next frame
    listed = window.page.evaluate("explorer.run.next.map(([id, , prob]) => [id, prob])")
    written = window.page.locator("#next .value").all_inner_texts()
    np.testing.assert_allclose(
        [float(text.rstrip("%")) / 100 for text in written], [p for _, p in listed], rtol=0.006
    )
    return listed


def _expected(python: LanguageModel, text: Any, *changes: Any) -> list[list[Any]]:
    summary = python.inspect(text, *changes).summary()
    return [[token, prob] for token, _, prob in summary["next"]]


def _same(found: list[list[Any]], expected: list[list[Any]]) -> None:
    assert [token for token, _ in found] == [token for token, _ in expected]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], rtol=1e-5)


def test_typing_shows_tokens_their_surprise_and_what_comes_next(
    window: Window, python: LanguageModel
) -> None:
    window.type(TEXT)
    assert window.page.locator("#tokens .token").count() == len(TEXT)
    _same(_next(window), _expected(python, TEXT))
    tokens = python.inspect(TEXT).summary()["tokens"]
    found = window.page.evaluate("explorer.run.tokens.map(token => token.logprob)")
    np.testing.assert_allclose(found[1:], [token["logprob"] for token in tokens[1:]], rtol=1e-5)
    assert found[0] is None


def test_a_clicked_token_is_appended_and_undo_takes_it_back(
    window: Window, python: LanguageModel
) -> None:
    window.type(TEXT)
    before = _next(window)
    window.page.locator("#next .word").nth(2).click()
    window.until(f"!explorer.busy && explorer.run.tokens.length === {len(TEXT) + 1}")
    ids = window.page.evaluate("explorer.run.tokens.map(token => token.id)")
    assert ids == [*TEXT.encode(), before[2][0]]
    _same(_next(window), _expected(python, ids))
    window.page.locator("#undo").click()
    window.until(f"!explorer.busy && explorer.run.tokens.length === {len(TEXT)}")
    assert _next(window) == before
    assert window.page.locator("#text").input_value() == TEXT


def test_a_head_is_picked_in_the_overview_and_pinned(window: Window, python: LanguageModel) -> None:
    window.type(TEXT)
    overview = window.show("scores", "#overview[aria-label]")
    overview.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
        window.page.keyboard.press(key)
    window.until("explorer.state.layer === 1 && explorer.state.head === 2")
    window.page.locator("#pin").click()
    strip = window.show("scores", "#pins .strip .token")
    titles = [strip.nth(i).get_attribute("title") for i in range(len(TEXT))]
    weights = python.inspect(TEXT)[f"query/{len(TEXT) - 1}"][1, 2]
    np.testing.assert_allclose(
        [float(t[:-1]) / 100 for t in titles], weights, rtol=0.006, atol=6e-5
    )
    assert window.state("pins") == [[1, 2]]
    window.page.locator("#pin").click()
    window.until("explorer.state.pins.length === 0")


def test_pointing_at_a_token_shows_what_it_attends_to(
    window: Window, python: LanguageModel
) -> None:
    window.type(TEXT)
    window.set(layer=1, head=1)
    strip = window.show("weighted", "#attended .token")
    for query in (12, 5):
        row = python.inspect(TEXT)["pattern/1/1"][query]
        best = int(row.argmax())
        strip.nth(query).hover()
        said = f"“{TEXT[query].replace(' ', '·')}” ({query}) attends most to "
        said += f"{TEXT[best].replace(' ', '·')} ({best}) "
        window.until(f"document.querySelector('#weighted .body').innerText.includes({said!r})")
    assert window.state("query") is None
    strip.nth(5).click()
    window.until("explorer.state.query === 5")


def test_taking_the_mask_off_is_an_intervention(window: Window, python: LanguageModel) -> None:
    window.type(TEXT)
    window.show("mask", "#unmask").click()
    window.until("!explorer.busy && explorer.state.interventions.unmasked?.[0] === 0")
    off = _expected(python, TEXT, Interventions(unmasked=[0]))
    window.until(f"explorer.run.next[0][0] === {off[0][0]}")
    _same(_next(window), off)
    window.page.locator("#unmask").click()
    window.until("!explorer.busy && !explorer.state.interventions.unmasked")
    _same(_next(window), _expected(python, TEXT))


def test_a_link_shows_another_reader_the_same(window: Window, browser: Any) -> None:
    window.type("naïve “שלום” 😀")
    window.set(layer=1, head=3, query=7, key=2, pins=[[0, 1]], interventions={"heads": [[0, 0, 0]]})
    link = window.page.evaluate("explorer.link()")
    assert "#v=1&s=" in link and "?" not in link
    with Window.opened(browser, window.port, "#" + link.partition("#")[2]) as other:
        for name in ("state", "run"):
            mine, theirs = (each.page.evaluate(f"explorer.{name}") for each in (window, other))
            assert mine == theirs
        assert other.page.locator("#text").input_value() == "naïve “שלום” 😀"
        assert not other.errors


def test_a_link_in_an_open_page_replaces_what_was_there(window: Window) -> None:
    window.type(TEXT)
    link = window.page.evaluate("explorer.link()")
    window.page.locator("#next .word").first.click()
    window.until(f"!explorer.busy && explorer.run.tokens.length === {len(TEXT) + 1}")
    window.set(pins=[[0, 1]], query=3, interventions={"heads": [[0, 0, 0]]}, theme="dark")
    window.page.evaluate("link => (location.hash = link)", "#" + link.partition("#")[2])
    window.until(f"!explorer.busy && explorer.run.tokens.length === {len(TEXT)}")
    names = ("pins", "query", "interventions", "tokens", "theme")
    assert [window.state(name) for name in names] == [[], None, {}, None, "dark"]


def test_an_empty_text_is_where_texts_begin_and_travels(window: Window, browser: Any) -> None:
    window.page.locator("#text").fill("")
    window.until("!explorer.busy && explorer.run.tokens.length === 1")
    said = "The text is empty: the model starts after <256>, which ends the previous text."
    window.until(f"document.querySelector('#empty').textContent === '{said}'")
    link = window.page.evaluate("explorer.link()")
    with Window.opened(browser, window.port, "#" + link.partition("#")[2]) as other:
        assert other.page.evaluate("explorer.run.run") == window.page.evaluate("explorer.run.run")
        assert other.page.locator("#empty").is_visible()
        other.type("it")
        assert not other.page.locator("#empty").is_visible()


def test_a_later_key_is_chosen_where_the_mask_is_off(window: Window, python: LanguageModel) -> None:
    window.type(TEXT)
    window.set(query=3, key=9, interventions={"unmasked": [0]})
    score = window.show("scores", "#score")
    expected = python.inspect(TEXT, Interventions(unmasked=[0]))["row/0/0/3"][0, 9]
    window.scroll("scores")
    assert float(score.inner_text()) == pytest.approx(expected, rel=1e-3)


def test_a_link_of_other_weights_says_so(window: Window, browser: Any) -> None:
    link = window.page.evaluate("(explorer.run.fingerprint = 'others', explorer.link())")
    with Window.opened(browser, window.port, "#" + link.partition("#")[2]) as other:
        assert "other weights" in other.page.locator(".notice").inner_text()


# The last two are {"layer": -1} and {"more": 1}.
BROKEN = (
    "#v=1&s=%%%", "#v=1&s=eJwDAAAAAAE", "#v=2&s=x", "#v=1",
    "#v=1&s=eJyrVspJrEwtUrJS0DWsBQAerQQS", "#v=1&s=eJyrVsrNL0pVslIwrAUAFkIDew",
)  # fmt: skip


@pytest.mark.parametrize("fragment", [*BROKEN, "#scores"])
def test_a_broken_link_says_so_and_opens_the_page_as_it_is(
    window: Window, browser: Any, fragment: str
) -> None:
    with Window.opened(browser, window.port, fragment) as other:
        assert other.show("prompt", "#next .word").count() == 10
        said = other.page.locator(".notice").text_content()
        assert said.startswith("The link is damaged") == (fragment in BROKEN)
        assert not other.errors


def test_a_broken_link_in_an_open_page_says_so_and_changes_nothing(window: Window) -> None:
    window.type(TEXT)
    window.page.evaluate(f"location.hash = '{BROKEN[0]}'")
    window.until("document.querySelector('.notice').textContent.startsWith('The link is damaged')")
    assert window.state("text") == TEXT


def test_a_text_that_is_too_long_gets_a_sentence_and_nothing_is_lost(window: Window) -> None:
    window.type(TEXT)
    before = _next(window)
    window.page.locator("#text").fill("a" * (CONTEXT + 1))
    error = window.page.locator("#text-error")
    window.until("document.querySelector('#text-error').textContent")
    said = "The text has 1,025 tokens, and the model takes at most 1,024 here."
    assert error.inner_text() == said
    assert _next(window) == before
    # It is not of the text in the box, and cannot be taken for it.
    assert window.page.locator("[inert] #tokens").count() == 1
    assert "still the previous result" in window.page.locator("#prompt").inner_text()
    window.type("it")
    assert not error.inner_text() and window.page.locator("[inert]").count() == 0
    # A change that is refused leaves the tokens those of the text.
    window.set(language="zh", interventions={"heads": [[9, 0, 0]]})
    window.until("document.querySelector('#text-error').textContent")
    assert window.page.locator("[inert]").count() == 0
    window.until("document.documentElement.lang === 'zh-Hans'")
    window.set(interventions={}, text="a" * (CONTEXT + 1))
    window.until("document.querySelector('#text-error').textContent.includes('有 1,025 个词元')")


def test_a_long_text_is_shown_by_pools_and_rows(window: Window, python: LanguageModel) -> None:
    text = ("it was, and it is " * 60)[:CONTEXT]
    window.type(text)
    for section in ("embedding", "journey", "layernorm", "qkv", "mask"):
        window.show(section, "canvas, svg")
    window.show("scores", "#score")
    assert "1024 tokens" in window.page.locator("#scores").inner_text()
    row = window.show("softmax", "tbody tr").first.inner_text().split()
    best = python.inspect(text)["row/0/0/1023"][2]
    assert int(row[1]) == int(best.argmax())
    assert float(row[-1].rstrip("%")) / 100 == pytest.approx(best.max(), rel=0.006)
    window.show("weighted", "#attended .token")
    assert not window.page.locator("section .error:visible").count()
