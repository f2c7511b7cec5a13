"""The explorer's page in a browser, and what a reader does with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

SECONDS = 120.0
"""How long a busy machine may take for a step."""
_ATTEMPTS = 3
_YARDSTICK = """() => {
  let best = Infinity;
  for (let i = 0; i < 8; i++) {
    const start = performance.now(), at = (n) => Math.exp(((n * 7919) % 50000) / -5000);
    Float64Array.from({ length: 50000 }, (_, n) => at(n)).sort();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}"""
_YARDSTICK_MS = 9.0
"""What it takes on the machine that limits of time are for: a core of a Xeon of 2.8 GHz."""


class Window:
    """Holds one page.

    Attributes:
      page: of Playwright.
      errors: what the page has reported.
    """

    def __init__(self, page: Any, port: int) -> None:
        self.page, self.port = page, port
        self.errors: list[str] = []
        page.set_default_timeout(1000 * SECONDS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: Any) -> None:
        # A refusal is told in words; the browser reports its status as well.
        if message.type == "error" and "status of 4" not in message.text:
            self.errors.append(message.text)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, browser: Any, port: int, fragment: str = "", **kind: Any) -> Iterator[Window]:
        """Opens the page, and waits for its first run."""
        kind = {"locale": "en-US", "reduced_motion": "reduce", **kind}
        context = browser.new_context(**kind)
        window = cls(context.new_page(), port)
        window.page.goto(f"http://127.0.0.1:{port}/{fragment}")
        window.until("Boolean(globalThis.explorer?.run) && !explorer.busy")
        yield window
        context.close()

    def until(self, expression: str) -> Any:
        """Returns the value of an expression once it is true; the page forbids to wait inside.

        What has been computed is drawn in the next frame, for which it waits, too.
        """
        end = time.monotonic() + SECONDS
        while True:
            value = self.page.evaluate(expression)
            if value:
                if "explorer.busy" in expression:
                    self.page.evaluate("new Promise((done) => requestAnimationFrame(done))")
                return value
            assert time.monotonic() < end, f"never true: {expression}"
            self.page.wait_for_timeout(20)

    def state(self, name: str) -> Any:
        """Returns a field of the page's state."""
        return self.page.evaluate(f"explorer.state.{name}")

    def set(self, **fields: Any) -> None:
        """Changes the state, and waits for what must be computed, and to be drawn."""
        self.page.evaluate("fields => explorer.set(fields)", fields)
        self.until("!explorer.busy")

    def type(self, text: str) -> None:
        """Types a text in place of the old one, and waits for its run."""
        box = self.page.locator("#text")
        box.click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(text)
        count = len(text.encode())
        self.until(f"!explorer.busy && explorer.run.tokens.length === {count}")

    def within(
        self, limit: float, measure: Callable[[], list[float]], *, scripted: bool = False
    ) -> None:
        """Checks that what is measured takes less than so many ms, in one of three attempts.

        Of several times, the shortest is what something takes; in others it waits for a processor,
        too.

        Args:
          limit: in ms.
          measure: returns times in ms.
          scripted: whether it is JavaScript alone that takes them. Where this is slower than on the
            machine of the limit, they may be longer.
        """
        told: list[str] = []
        for _ in range(_ATTEMPTS):
            took = min(measure())
            slowness = self.page.evaluate(_YARDSTICK) / _YARDSTICK_MS if scripted else 1.0
            most = limit * max(1.0, slowness)
            if took < most:
                return
            told.append(f"{took:.1f} ms, of at most {most:.1f} ms")
        raise AssertionError("; ".join(told))

    def scroll(self, *sections: str) -> None:
        """Scrolls to sections, one by one, and waits until each is drawn."""
        for section in sections:
            self.page.locator(f"#{section}").scroll_into_view_if_needed()
            self.until(f"document.getElementById('{section}').ariaBusy === 'false'")

    def open(self, panel: str) -> None:
        """Opens a panel, and waits until it is drawn."""
        self.page.evaluate(f"explorer.open('{panel}')")
        drawn = f"#panel[aria-busy=false] [data-panel={panel}]:not([hidden])"
        self.until(f"document.querySelectorAll('{drawn}').length > 0")

    def show(self, section: str, inside: str) -> Any:
        """Scrolls to a section, and returns a part of it once it is there."""
        self.scroll(section)
        part = self.page.locator(f"#{section} {inside}")
        part.first.wait_for(state="visible")
        return part
