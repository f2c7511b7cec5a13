"""Tests the page on models that cannot read its example, and with several models at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.serve.models import Limits
from gpt2_jax.tasks.music.events import vocabulary
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.ids import IdsTokenizer
from tests.page.window import Window
from tests.serve.serving import serving, tiny_model

pytestmark = pytest.mark.chromium
CHARACTERS = CharTokenizer("\nabc ")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server of a model of few characters, of one without a tokenizer, of bytes, of music."""
    others = {
        "ids": tiny_model(IdsTokenizer(64, "none was found")),
        "bytes": tiny_model(ByteTokenizer(), position="alibi"),
        "music": tiny_model(vocabulary(), context_length=64),
    }
    characters = tiny_model(CHARACTERS, context_length=64)
    with serving(characters, limits=Limits(num_slots=1, max_length=16), others=others) as client:
        yield client.port


@pytest.fixture
def window(browser: Any, port: int) -> Iterator[Window]:
    with Window.opened(browser, port) as found:
        yield found
    assert not found.errors


def _choose(window: Window, model: str) -> None:
    window.page.locator("#model").select_option(model)
    window.until(f"!explorer.busy && explorer.run.model === {model!r}")
    window.page.wait_for_timeout(50)


def test_an_example_that_a_model_cannot_read_gives_way_to_its_first_token(window: Window) -> None:
    assert window.page.evaluate("explorer.tokens().map(({ id }) => id)") == [0]
    assert not window.page.locator("#text-error").inner_text()
    window.type("ab cab")
    assert window.page.locator("#tokens .token").count() == 6


def test_a_refused_link_leaves_a_box_to_type_into(browser: Any, window: Window) -> None:
    window.page.evaluate("Object.assign(explorer.state, { text: 'xyz', tokens: null })")
    link = window.page.evaluate("explorer.link()")
    other = Window(browser.new_context(locale="en-US").new_page(), window.port)
    other.page.goto(f"http://127.0.0.1:{window.port}/#{link.partition('#')[2]}")
    other.until("document.querySelector('#text-error')?.textContent")
    assert "'x'" in other.page.locator("#text-error").inner_text()
    assert other.page.locator("#text").input_value() == "xyz"
    other.page.locator("#text").fill("abc")
    other.until("!explorer.busy && explorer.run?.tokens.length === 3")
    other.show("prompt", "#next .word")
    assert not other.errors
    other.page.context.close()


def test_ids_are_typed_into_a_model_without_a_tokenizer(window: Window) -> None:
    _choose(window, "ids")
    assert window.page.locator("#text").input_value() == "0"
    box = window.page.locator("#text")
    box.click()
    window.page.keyboard.press("End")
    for typed, ids in ((" ", [0]), ("12", [0, 12]), (" 7", [0, 12, 7])):
        window.page.keyboard.insert_text(typed)
        window.until(f"!explorer.busy && explorer.state.text.endsWith({typed!r})")
        window.until(
            f"String(explorer.tokens().map(({{ id }}) => id)) === {','.join(map(str, ids))!r}"
        )
    assert box.input_value() == "0 12 7"
    window.page.locator("#next .word").first.click()
    window.until("!explorer.busy && explorer.tokens().length === 4")
    assert box.input_value().startswith("0 12 7 ")


def test_another_model_keeps_the_text_and_nothing_that_was_chosen(window: Window) -> None:
    window.type("ab cab")
    window.page.locator("#next .word").first.click()
    window.until("!explorer.busy && explorer.tokens().length === 7")
    text = window.state("text")
    window.set(layer=1, pins=[[1, 0]], query=2, interventions={"heads": [[0, 0, 0]]})
    _choose(window, "bytes")
    assert window.state("text") == text and window.state("tokens") is None
    names = ("pins", "query", "interventions", "layer")
    assert [window.state(name) for name in names] == [[], None, {}, 0]
    assert window.page.evaluate("explorer.past.length") == 0


def _boxed(window: Window) -> tuple[str, list[int]]:
    """Returns the text in the box, and how many tokens are shown where the text is not refused."""
    window.page.evaluate("new Promise((done) => requestAnimationFrame(done))")
    stale = window.page.evaluate("explorer.stale()")
    shown = [] if stale else [window.page.locator("#tokens .token").count()]
    return window.page.locator("#text").input_value(), shown


def test_a_typed_text_is_kept_whatever_the_model_can_read(window: Window) -> None:
    box, notes = window.page.locator("#text"), "NoteOn_60 NoteOn_64"
    _choose(window, "music")
    assert _boxed(window)[0].startswith("NoteOn_48 ")  # the example, which gives way
    _choose(window, "ids")
    assert _boxed(window) == ("0", [1])
    _choose(window, "music")
    box.fill(notes)
    window.until("!explorer.busy && explorer.tokens().length === 2")
    _choose(window, "bytes")  # the box has the focus
    assert _boxed(window) == (notes, [len(notes)])
    box.fill("hello 12")
    window.until("!explorer.busy && explorer.tokens().length === 8")
    for model in ("music", "ids"):
        window.page.locator("#model").select_option(model)
        window.until("!explorer.busy && explorer.error")
        assert _boxed(window) == ("hello 12", [])
        assert window.page.locator("#text-error").inner_text() == window.page.evaluate(
            "explorer.error"
        )
    _choose(window, "bytes")
    assert _boxed(window) == ("hello 12", [8])
    assert not window.page.locator("#text-error").inner_text()


def test_what_is_being_typed_is_read_by_the_model_that_is_chosen_meanwhile(window: Window) -> None:
    _choose(window, "bytes")
    # In one turn: the text is not sent yet.
    window.page.evaluate(
        """() => {
          const [box, model] = ["text", "model"].map((id) => document.getElementById(id));
          box.focus();
          box.value = "NoteOn_60";
          box.dispatchEvent(new Event("input"));
          model.value = "music";
          model.dispatchEvent(new Event("change"));
        }"""
    )
    window.until("explorer.state.text === 'NoteOn_60' && !explorer.busy")
    assert _boxed(window) == ("NoteOn_60", [1])


def test_an_example_gives_way_in_a_window_that_is_loaded_again(browser: Any, port: int) -> None:
    with Window.opened(browser, port) as window:
        _choose(window, "bytes")
        window.until("location.hash.length > 1")
        window.page.wait_for_timeout(400)
        window.page.reload()
        window.until("Boolean(globalThis.explorer?.run) && !explorer.busy")
        assert _boxed(window)[0].startswith("def add")
        _choose(window, "music")
        assert _boxed(window)[0].startswith("NoteOn_48 ")
        _choose(window, "tiny")  # which has not all characters of the example
        assert _boxed(window)[0] == "\n"
        _choose(window, "bytes")
        assert _boxed(window)[0].startswith("def add")


def test_a_score_with_a_bias_is_not_checked_against_itself(window: Window) -> None:
    _choose(window, "bytes")
    window.type("abcab")
    window.show("scores", "#score").click()
    window.until("explorer.explained")
    panel = window.page.locator("#panel")
    window.until("document.querySelector('#panel pre')")
    assert "what the position adds" in panel.inner_text()
    assert "computed again" not in panel.inner_text()


def test_a_number_says_how_python_reads_it_whatever_is_typed_next(window: Window) -> None:
    window.type("ab cab")
    window.show("prompt", "#next .value").first.click()
    window.until("document.querySelector('#panel pre')")
    line = window.page.locator("#panel pre").inner_text()
    assert 'model.inspect("ab cab")' in line and 'gpt2_jax.load("/nowhere")' in line
    window.type("cab")
    window.page.evaluate("new Promise((done) => requestAnimationFrame(done))")  # it is drawn
    assert window.page.locator("#panel pre").inner_text() == line
    # It prints what is shown.
    shown: list[Any] = []
    lines = [part for part in line.splitlines() if not part.startswith("model =")]
    python = LanguageModel(tiny_model(CHARACTERS, context_length=64))
    exec("\n".join(lines), {"model": python, "print": shown.append})
    np.testing.assert_allclose(shown, [window.page.evaluate("explorer.explained.value")], rtol=1e-5)
