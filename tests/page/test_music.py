"""Tests the piano roll of the page, on a model whose tokens are events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gpt2_jax.serve.models import Limits
from gpt2_jax.tasks.music.events import decode, encode, vocabulary
from tests.page.window import Window
from tests.serve.serving import serving, tiny_model
from tests.tasks.music.chorales import voice

pytestmark = pytest.mark.chromium
WORDS = encode([*voice(0, 6), *voice(1, 3, below=24, length=8)])
HELD = [*WORDS, "NoteOn_90", "TimeShift_0.2.4", "NoteOff_21"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    model = tiny_model(vocabulary(), context_length=64)
    with serving(model, limits=Limits(num_slots=1, max_length=16)) as client:
        yield client.port


def test_notes_are_drawn_and_choose_their_token(browser: Any, port: int) -> None:
    with Window.opened(browser, port) as window:
        window.page.locator("#text").fill(" ".join(HELD))
        window.until(f"!explorer.busy && explorer.tokens().length === {len(HELD)}")
        window.open("music")
        window.until("document.querySelectorAll('#panel .note').length > 0")
        found = window.page.evaluate(
            "import('./static/panels/music.js').then(({ notes }) => notes(explorer.tokens()))"
        )
        shown = [[each["start"], each["pitch"], each["stop"] - each["start"]] for each in found]
        assert sorted(shown) == [list(note) for note in decode(HELD).notes]
        assert window.page.locator("#panel .note").count() == len(shown)
        window.page.locator("#panel .note").nth(3).dispatch_event("click")
        window.until(f"explorer.state.query === {found[3]['token']}")
        window.until("document.querySelectorAll('#panel .note.now').length === 1")
        assert not window.errors


@pytest.mark.parametrize("width", [390, 1280])
def test_the_next_events_can_be_told_apart(browser: Any, port: int, width: int) -> None:
    with Window.opened(browser, port, viewport={"width": width, "height": 800}) as window:
        window.page.locator("#text").fill(" ".join(HELD))
        window.until(f"!explorer.busy && explorer.tokens().length === {len(HELD)}")
        names = [vocabulary().words[i] for i in (9, 100, -1)]
        assert "TimeShift_4.0.4" in names
        for name in names:  # as if it were the most probable one
            window.page.evaluate("name => { explorer.run.next[0][1] = name + ' '; }", name)
            window.page.evaluate("explorer.changed()")
            word = window.page.locator(f"#next .word[title^='{name}']")
            word.wait_for()
            whole = "node => node.scrollWidth <= node.clientWidth"
            assert word.evaluate(whole), name
            assert word.evaluate("node => node.nextSibling.offsetWidth") > 40


def test_a_text_has_no_piano_roll(window: Window) -> None:
    window.type("some text")
    assert window.page.locator("[data-open=music]").is_hidden()
