"""Tests a one-file lesson in a browser: it opens from a disk, asks for nothing, and is exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.interventions import Interventions, Swap
from gpt2_jax.serve.lesson import lesson
from tests.page.window import Window

pytestmark = pytest.mark.chromium
_TEXT = "it was, </script> and it é"
_STATE = {"model": "small", "layer": 1, "head": 0, "query": 9, "key": 4}
# 115 is the s that follows position 9.
_EXACT = ("pattern/1/0", "row/1/0/9", "qkv/1/0", "thumbs", "logits", "lens/9", "attribution/9/115")


@pytest.fixture(scope="module")
def inspection(python: LanguageModel) -> Inspection:
    return python.inspect(_TEXT)


@pytest.fixture
def opened(
    browser: Any, inspection: Inspection, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Window, list[str]]]:
    """A lesson from a disk without a network, and what it has asked for beside itself."""
    path = tmp_path / "lesson.html"
    path.write_bytes(lesson(inspection, _STATE, getattr(request, "param", "en")))
    context = browser.new_context(locale="en-US", reduced_motion="reduce", offline=True)
    window, asked = Window(context.new_page(), 0), []
    window.page.on("request", lambda sent: asked.append(sent.url))
    window.page.goto(path.as_uri())
    window.until("Boolean(globalThis.explorer?.run) && !explorer.busy")
    yield window, [url for url in asked if url != path.as_uri() and not url.startswith("data:")]
    context.close()


def test_every_section_is_drawn_and_nothing_is_asked_for(
    opened: tuple[Window, list[str]],
) -> None:
    window, asked = opened
    sections = window.page.locator("#sections > section")
    assert sections.count() == 18
    for section in sections.all():
        name = section.get_attribute("id")
        window.scroll(name)
        assert section.locator(".body > *").count(), name
        assert section.locator("> .error:visible").all_inner_texts() == [], name
        assert "Append a token" not in section.locator(".body").inner_text()  # it has no model
    assert not asked and not window.errors
    assert "arrays of this text" in window.page.locator("#top .notice").inner_text()
    assert window.page.locator("#text").get_attribute("readonly") is not None
    assert window.page.locator("#text").input_value() == _TEXT


def test_the_arrays_are_those_of_the_python_api(
    opened: tuple[Window, list[str]], inspection: Inspection
) -> None:
    window, _ = opened
    for address in _EXACT:
        found = window.page.evaluate(
            "async address => { const { shape, data } = await explorer.get(address);"
            " return { shape: [...shape], data: [...data].map(String) }; }",
            address,
        )
        expected = inspection[address]
        assert tuple(found["shape"]) == expected.shape
        shown = np.array(found["data"]).astype(np.float64).reshape(expected.shape)
        np.testing.assert_array_equal(shown, expected.astype(np.float64))
    shown = window.page.evaluate("explorer.run.next.map(([token, text, prob]) => [token, prob])")
    assert shown == [[token, prob] for token, _, prob in inspection.summary()["next"]]


def test_what_it_does_not_hold_is_refused_in_words(opened: tuple[Window, list[str]]) -> None:
    window, _ = opened
    said = window.page.evaluate(
        "explorer.post('run', { tokens: [1, 2] }).catch(error => explorer.sentence(error))"
    )
    assert said == window.page.evaluate("explorer.t('error.lesson')")
    assert said.startswith("This lesson does not hold that part")


@pytest.mark.parametrize("opened", ["zh"], indirect=True)
def test_a_lesson_opens_in_its_language(opened: tuple[Window, list[str]]) -> None:
    window, _ = opened
    assert window.page.evaluate("document.documentElement.lang").startswith("zh")
    assert not window.errors


def test_a_lesson_of_a_changed_text_says_what_has_no_meaning_there(
    browser: Any, python: LanguageModel, tmp_path: Path
) -> None:
    given = {"site": "resid_post", "layer": 0, "position": 1}
    swap = Swap(**given, donor=python.inspect("xy").run.residual[2, 1])
    changed = python.inspect("abc", Interventions(swaps=[swap]))
    listed = {"swaps": [given | {"from": {"text": "xy", "position": 1}}]}
    path = tmp_path / "lesson.html"
    path.write_bytes(lesson(changed, {"model": "small", "query": 1, "interventions": listed}))
    window = Window(browser.new_context(locale="en-US", offline=True).new_page(), 0)
    window.page.goto(path.as_uri())
    window.until("Boolean(globalThis.explorer?.run) && !explorer.busy")
    window.scroll("logits")
    said = window.page.locator("#logits .body .error").inner_text()
    assert said.startswith("This lesson does not hold that part")
    window.set(query=2)
    window.until("!document.querySelector('#logits .body .error').textContent")
    assert not window.errors
    window.page.context.close()
