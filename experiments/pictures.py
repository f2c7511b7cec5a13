"""Makes the pictures of the documentation from a trained model.

Command (under a minute on two cores; needs the extras `plots`, `serve` and `test`, and Debian's
chromium; writes figures of `gpt2-jax inspect` as SVG, and explorer.png, the page of `gpt2-jax
serve`):
  python experiments/pictures.py --model runs/quickstart --out docs/images

The text repeats a word, so that it has a place where an induction head finds what came next.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TEXT = "import os\nimport sys\nimport o"
FIGURES = (
    *("norms", "attention", "arcs", "heads", "head_scores", "lens_grid", "next_tokens"),
    "surprise",
)
_SIZE = {"width": 1400, "height": 900}
_SECTION = "weighted"
_SHOWN = {"layer": 1, "head": 0, "query": 20, "key": 10}
_GPT2_JAX = (sys.executable, "-m", "gpt2_jax")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="runs/quickstart", help="a run's workdir")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="where they go")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    figures(args.model, args.out)
    with serving(args.model) as address:
        explorer(address, args.out / "explorer.png")


def figures(model: str, out: Path) -> None:
    """Writes the figures of the text."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--text", TEXT, "--formats", "svg", "--no_lesson", "--out", folder)
        subprocess.run([*_GPT2_JAX, "inspect", "--model", model, *flags], check=True)
        for name in FIGURES:
            shutil.copyfile(Path(folder, f"{name}.svg"), out / f"{name}.svg")


@contextlib.contextmanager
def serving(model: str) -> Iterator[str]:
    """Serves a model on a free port, and yields the address of its page."""
    command = [*_GPT2_JAX, "serve", "--model", model, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            print(line, end="")
            if match := re.search(r"ready: open (http://\S+)", line):
                yield match[1]
                return
        raise SystemExit("error: the server has ended before it was ready")
    finally:
        server.terminate()
        server.wait()


def explorer(address: str, out: Path) -> None:
    """Writes the page as it is on a wide screen, with the attention of a head."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page: Any = browser.new_page(viewport=_SIZE, locale="en-US", color_scheme="light")
        page.goto(address)
        _wait(page)
        page.evaluate("fields => explorer.set(fields)", {"text": TEXT, **_SHOWN})
        _wait(page)
        _scroll(page)
        page.screenshot(path=out)
        browser.close()


def _scroll(page: Any) -> None:
    """Scrolls to the section until the page is still: what comes into view is drawn then."""
    script = "name => { const box = document.getElementById(name); box.scrollIntoView();"
    script += " return [box.offsetTop, box.offsetHeight]; }"
    places: list[Any] = [None]
    while len(places) < 6 or any(place != places[-1] for place in places[-5:]):
        page.wait_for_timeout(400)
        places.append(page.evaluate(script, _SECTION))


def _wait(page: Any) -> None:
    """Waits until the page shows its run; a content policy forbids Playwright's own way."""
    while not page.evaluate("Boolean(globalThis.explorer?.run) && !explorer.busy"):
        page.wait_for_timeout(50)


if __name__ == "__main__":
    main()
