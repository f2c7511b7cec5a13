"""Tests the panels of the page: steps, compare, interventions, card, engine; against Python."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax import load
from gpt2_jax.api import LanguageModel
from gpt2_jax.interpret.card import card
from gpt2_jax.interpret.comparison import compare
from gpt2_jax.interpret.interventions import Interventions
from gpt2_jax.serve.models import Limits
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.tiny import make_run
from tests.page.window import SECONDS, Window
from tests.serve.serving import Client, served_config, serving

pytestmark = pytest.mark.chromium
TEXT = "it was, and it is"
STEPS = (2, 4, 6)


def _open(window: Window, panel: str) -> Any:
    window.page.locator(f"[data-open={panel}]").click()
    window.until("!document.querySelector('#panel').hidden")
    return window.page.locator("#panel")


def _click(window: Window, selector: str) -> None:
    """Presses a button by the keyboard."""
    window.page.locator(selector).focus()
    window.page.keyboard.press("Enter")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("runs") / "small", ByteTokenizer()
    for step in STEPS:
        make_run(folder, served_config(tokenizer), tokenizer, step=step, seed=step)
    return folder


@pytest.fixture(scope="module")
def stepped(run: Path) -> Iterator[int]:
    with serving(path=run, limits=Limits(num_slots=1, max_length=16)) as client:
        yield client.port


def _at(run: Path, step: int) -> LanguageModel:
    return load(str(run / "checkpoints" / str(step)))


def test_heads_off_masks_off_and_undone(window: Window, python: LanguageModel) -> None:
    window.type(TEXT)
    untouched = window.page.evaluate("explorer.run.next")
    _open(window, "interventions")
    _click(window, "[data-focus='heads 0,1']")
    window.until("!explorer.busy && explorer.state.interventions.heads?.length === 1")
    _click(window, "[data-focus='mlps 1']")
    window.until("!explorer.busy && explorer.state.interventions.mlps?.length === 1")
    _click(window, "[data-focus='mask 1']")
    window.until("!explorer.busy && explorer.state.interventions.unmasked?.length === 1")
    changes = Interventions(heads={(0, 1): 0.0}, mlps={1: 0.0}, unmasked=[1])
    expected = python.inspect(TEXT, changes)["logits"]
    window.page.evaluate("explorer.get('logits').then(({ data }) => (window.got = [...data]))")
    np.testing.assert_allclose(window.until("window.got"), expected, atol=1e-5)
    assert window.page.locator("#changes li").count() == 3
    # Factors of 1 stay in the list, and change nothing.
    for name in ("factor heads 0,1", "factor mlps 1"):
        window.page.locator(f"[data-focus='{name}']").fill("1")
        window.page.keyboard.press("Enter")
    _click(window, "#changes li:nth-child(3) .close")
    window.until("!explorer.busy && !explorer.state.interventions.unmasked")
    window.until("document.querySelector('#panel').innerText.includes('Equal to the untouched')")
    assert window.page.evaluate("explorer.run.next") == untouched
    _click(window, "#undo-all")
    window.until("!explorer.busy && !Object.keys(explorer.state.interventions).length")
    assert window.page.evaluate("explorer.run.next") == untouched


def test_the_stream_of_another_text_is_put_in(window: Window, python: LanguageModel) -> None:
    window.type(TEXT)
    _open(window, "interventions")
    other = TEXT[:-1] + "?"
    window.set(layer=1, query=len(TEXT) - 1)
    window.page.locator("#swap-text").fill(other)
    window.page.get_by_role("button", name="Put in", exact=True).click()
    window.until("!explorer.busy && explorer.state.interventions.swaps?.length === 1")
    # Behind the last block at the last position, the stream is all that the logits are read from.
    window.page.evaluate("explorer.get('logits').then(({ data }) => (window.got = [...data]))")
    found = window.until("window.got")
    np.testing.assert_allclose(found, python.inspect(other)["logits"], atol=1e-5)
    # Each token has both probabilities, wherever it was without the change.
    window.until("document.querySelectorAll('#panel table:not(.cells) tbody tr').length === 10")
    shown = window.page.locator("#panel table:not(.cells) .num").all_inner_texts()
    ids = window.page.evaluate("explorer.run.next.map(([id]) => id)")
    assert not {*ids} <= {id_ for id_, *_ in python.inspect(TEXT).summary()["next"]}
    for column, text in enumerate((TEXT, other)):
        weights = np.exp(python.inspect(text)["logits"].astype(np.float64))
        np.testing.assert_allclose(
            [float(share.rstrip("%")) / 100 for share in shown[column::2]],
            (weights / weights.sum())[ids],
            rtol=0.006,
        )
    at = f"position {len(TEXT) - 1}"
    named = "stream behind layer 1, {at}: that of “{text}”, {at}"
    listed = window.page.locator("#changes li")
    assert listed.inner_text().startswith(named.format(at=at, text=other))
    # What is put in at the same place is in place of it.
    window.page.locator("#swap-text").fill("x" * 50)
    window.page.get_by_role("button", name="Put in", exact=True).click()
    window.until("document.querySelector('#changes li')?.innerText.includes('xxx')")
    assert listed.inner_text().startswith(named.format(at=at, text="x" * 40 + "…"))
    assert len(window.state("interventions.swaps")) == 1
    window.page.locator("#changes .close").click()
    window.until("!explorer.busy && !explorer.state.interventions.swaps")


def test_a_text_that_ends_before_a_swap_says_what_to_undo(window: Window) -> None:
    window.type(TEXT)
    _open(window, "interventions")
    window.set(query=len(TEXT) - 1)
    window.page.locator("#swap-text").fill("another text")
    window.page.get_by_role("button", name="Put in", exact=True).click()
    window.until("!explorer.busy && explorer.state.interventions.swaps?.length === 1")
    undo = window.page.locator("#prompt").get_by_role("button", name="Undo all", exact=True)
    assert undo.is_hidden()
    window.page.locator("#text").fill("im")
    window.until("!explorer.busy && explorer.error")
    said = window.page.locator("#text-error")
    assert said.inner_text() == (
        f"A change is at position {len(TEXT) - 1}, which this text does not reach: lengthen the "
        "text, or undo the change."
    )
    undo.click()
    window.until("!explorer.busy && explorer.tokens().length === 2")
    assert undo.is_hidden() and not said.inner_text()
    assert window.page.locator("#text").input_value() == "im"


def test_a_link_brings_the_text_that_a_swap_is_from(
    window: Window, browser: Any, served: Client
) -> None:
    window.type(TEXT)
    _open(window, "interventions")
    window.page.locator("#swap-text").fill("another text")
    window.page.get_by_role("button", name="Put in", exact=True).click()
    window.until("!explorer.busy && explorer.state.interventions.swaps?.length === 1")
    link, run = window.page.evaluate("explorer.link()"), window.page.evaluate("explorer.run.run")
    served.explorer.insights.runs.drop(lambda seen: True)  # as if the server had been restarted
    with Window.opened(browser, window.port, "#" + link.partition("#")[2]) as other:
        assert other.page.evaluate("explorer.run.run") == run
        served.explorer.insights.runs.drop(lambda seen: True)
        other.page.evaluate("explorer.get('norms').then(({ data }) => (window.got = data.length))")
        assert other.until("window.got") == 5 * len(TEXT)
        assert not other.errors


def test_what_has_no_meaning_is_not_asked_for(window: Window) -> None:
    window.type(TEXT)
    _open(window, "interventions")
    window.page.get_by_role("button", name="Put in", exact=True).click()
    _click(window, "[data-focus='heads 0,1']")
    window.until("!explorer.busy && explorer.state.interventions.heads?.length === 1")
    factor, said = (
        window.page.locator(selector)
        for selector in ("[data-focus='factor heads 0,1']", "#panel [role=alert]")
    )
    for value in ("-1e9", "1e400", ""):
        assert not said.inner_text()
        factor.click()
        window.page.keyboard.press("ControlOrMeta+a")
        window.page.keyboard.press("Backspace")
        window.page.keyboard.type(value)
        window.page.keyboard.press("Enter")
        window.page.wait_for_timeout(100)
        assert said.inner_text() == "A factor is a number from \u2212100 to 100."
        assert factor.get_attribute("aria-invalid") == "true"
        assert window.state("interventions") == {"heads": [[0, 1, 0]]}
        window.set(interventions={"heads": [[0, 1, 0]]})
    factor.fill("0.5")
    window.page.keyboard.press("Enter")
    window.until("explorer.state.interventions.heads[0][2] === 0.5 && !explorer.busy")
    assert not said.inner_text()


def test_what_the_server_let_go_of_is_asked_for_again(window: Window, served: Client) -> None:
    window.type(TEXT)
    run = window.page.evaluate("explorer.run.run")
    served.explorer.insights.runs.drop(lambda seen: True)
    # What was chosen since is not what is shown.
    window.page.evaluate("explorer.state = { ...explorer.state, text: 'something else' }")
    window.page.evaluate("explorer.get('norms').then(({ data }) => (window.got = data.length))")
    assert window.until("window.got") == 5 * len(TEXT)
    assert window.page.evaluate("explorer.run.run") == run


def test_a_neuron_is_switched_off(window: Window, python: LanguageModel) -> None:
    window.type(TEXT)
    window.set(layer=0)
    off = window.show("mlp", "[aria-pressed=false]:text-is('off')")
    off.click()
    window.until("!explorer.busy && explorer.state.interventions.neurons?.length === 1")
    [[layer, neuron, factor]] = window.state("interventions.neurons")
    best = python.inspect(TEXT)["neurons/0"][-1, 0, 0]
    assert (layer, neuron, factor) == (0, best, 0)
    expected = python.inspect(TEXT, Interventions(neurons={(0, neuron): 0.0})).summary()["next"]
    assert window.page.evaluate("explorer.run.next.map(([id]) => id)") == [e[0] for e in expected]


def test_steps_are_scrubbed_and_followed(browser: Any, stepped: int, run: Path) -> None:
    with Window.opened(browser, stepped) as window:
        window.type(TEXT)
        _open(window, "steps")
        slider = window.page.locator("#steps-slider")
        slider.focus()
        window.page.keyboard.press("Home")
        window.until("!explorer.busy && explorer.run.step === 2")
        for step in STEPS[1:]:
            window.page.keyboard.press("ArrowRight")
            window.until(f"!explorer.busy && explorer.run.step === {step}")
            expected = _at(run, step).inspect(TEXT).summary()["next"]
            found = window.page.evaluate("explorer.run.next.map(([id]) => id)")
            assert found == [token for token, _, _ in expected]
        assert slider.get_attribute("aria-valuetext") == "step 6"
        _click(window, "#curves")
        window.until("document.querySelectorAll('#panel figure').length === 4")
        window.until("!document.querySelector('#curves').disabled")
        label = window.page.locator("#panel figure svg").first.get_attribute("aria-label")
        losses = [float(word) for word in label.partition(": ")[2].split(", ")]
        tokens = [_at(run, step).inspect(TEXT).summary()["tokens"] for step in STEPS]
        expected = [-np.mean([token["logprob"] for token in each[1:]]) for each in tokens]
        np.testing.assert_allclose(losses, expected, rtol=0.006)
        assert not window.errors


def test_a_scrub_to_a_loaded_step_takes_less_than_150_ms(browser: Any, stepped: int) -> None:
    with Window.opened(browser, stepped) as window:
        window.type(TEXT)
        for step in STEPS * 2:
            window.set(step=step)
        scrubs = """async ([states, most]) => {
          const times = [];
          for (const state of states) {
            const start = performance.now(), took = () => performance.now() - start;
            explorer.set(state);
            while (explorer.busy || explorer.run.step !== state.step) {
              if (explorer.error || took() > most) throw Error(explorer.error || 'no answer');
              await new Promise((resolve) => setTimeout(resolve, 2));
            }
            times.push(took());
          }
          return times;
        }"""
        texts = (f"it was, and it i{i:08}" for i in itertools.count())  # of no run that is kept

        def scrubbed() -> list[float]:
            states = [{"step": step, "text": next(texts)} for step in STEPS * 4]
            return window.page.evaluate(scrubs, [states, 1000 * SECONDS])

        window.within(150, scrubbed)


def test_two_steps_are_compared(browser: Any, stepped: int, run: Path) -> None:
    with Window.opened(browser, stepped) as window:
        window.type(TEXT)
        _open(window, "compare")
        window.page.locator("#compare-step").select_option("4")
        window.until("document.querySelector('#compared')?.innerText.includes('step 4')")
        runs = [_at(run, step).inspect(TEXT).run for step in (6, 4)]
        expected = compare(*runs)
        shown = window.page.locator("#compared .amounts .num").all_inner_texts()
        np.testing.assert_allclose([float(x) for x in shown], expected["kl"], rtol=2e-3, atol=1e-6)
        rows = window.page.locator("#compared table tbody tr")
        assert rows.count() == len(expected["next"])
        first = rows.first.locator(".num").all_inner_texts()
        for text, share in zip(first, expected["next"][0][2:], strict=False):
            assert float(text.rstrip("%")) / 100 == pytest.approx(share, rel=0.006, abs=5e-5)
        window.until("document.querySelector('#compared canvas')")
        assert not window.errors


def test_the_card_is_the_sum_of_its_parts(window: Window, python: LanguageModel) -> None:
    panel = _open(window, "card")
    window.until("document.querySelector('#parameters')")
    expected = card(python.config.model)
    said = window.page.locator("#parameters").inner_text()
    assert int(said.replace(",", "")) == expected["parameters"]
    text = panel.inner_text()
    for part in ("124.4 M", "354.8 M", "774.0 M", "1.558 B", "117M"):
        assert part in text


def test_the_engine_is_polled_only_while_it_is_shown(window: Window) -> None:
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.url))

    def polls() -> int:
        return sum("/engine" in url for url in asked)

    _open(window, "engine")
    window.until("document.querySelectorAll('#slots .slots li').length === 4")
    while polls() < 2:  # or pytest's limit of time
        window.page.wait_for_timeout(50)
    window.page.keyboard.press("Escape")
    window.page.wait_for_timeout(200)
    before = polls()
    window.page.wait_for_timeout(800)
    assert polls() == before
