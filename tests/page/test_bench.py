"""Tests sampling, the loop, the cache and a training step in the page, against Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.interpret.training_step import training_step
from gpt2_jax.serve.models import Limits
from gpt2_jax.tokenizers.bpe import BPETokenizer
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT, Vocabulary
from tests.page.conftest import CONTEXT
from tests.page.window import Window
from tests.serve.serving import serving, tiny_model

pytestmark = pytest.mark.chromium
TEXT = "it was, and it is"
GPT2_VOCABULARY = 50257


def _move(window: Window, name: str, value: float) -> None:
    """Moves a slider as a hand does."""
    window.page.evaluate(
        """([id, value]) => {
          const slider = document.getElementById(id);
          slider.value = value;
          slider.dispatchEvent(new Event("input", { bubbles: true }));
          slider.dispatchEvent(new Event("change", { bubbles: true }));
        }""",
        [f"sampling-{name}", value],
    )


def test_what_the_sliders_keep_is_written(window: Window, python: LanguageModel) -> None:
    window.type(TEXT)
    window.show("sampling", "#kept")
    _move(window, "temperature", 0.5)
    _move(window, "top_k", 4)
    window.until("explorer.state.sampling.top_k === 4")
    logits = python.inspect(TEXT)["logits"].astype(np.float64)
    scaled = np.exp((logits - logits.max()) / 0.5)
    best = np.sort(scaled)[::-1]
    window.until("document.querySelector('#kept').innerText.startsWith('Kept: 4 of')")
    share = 100 * best[:4].sum() / best.sum()
    said = window.page.locator("#kept").inner_text()
    assert float(said.partition(" with ")[2].partition("%")[0]) == pytest.approx(share, rel=0.006)
    shown = window.page.locator("#sampling .pairs-of .num").all_inner_texts()
    expected = best[:4] / best[:4].sum()
    np.testing.assert_allclose([float(x.rstrip("%")) / 100 for x in shown[:4]], expected, rtol=0.01)
    assert set(shown[4:]) == {"\u2013"}


def test_a_seed_writes_in_the_page_what_it_writes_in_python(
    window: Window, python: LanguageModel
) -> None:
    window.type(TEXT)
    window.set(sampling={"temperature": 0.9, "top_k": 50, "top_p": 0.95, "seed": 7})
    window.show("appended", "#loop-next")
    for count in range(1, 5):
        window.page.locator("#loop-next").click()
        window.until(f"!explorer.busy && explorer.run.tokens.length === {len(TEXT) + count}")
    found = window.page.evaluate("explorer.run.tokens.map(token => token.id)")[len(TEXT) :]
    options = SamplingOptions(temperature=0.9, top_k=50, top_p=0.95, ignore_eos=True)
    sample = python.generate(TEXT, max_new_tokens=4, options=options, seed=7)[0]
    assert found == sample.tokens
    window.until("document.querySelectorAll('#appended mark').length === 4")
    # The old rows of the cache did not move.
    said = window.show("cache", "[role=status]")
    window.page.locator("#loop-next").click()
    window.until(f"!explorer.busy && explorer.run.tokens.length === {len(TEXT) + 5}")
    window.until("document.querySelector('#cache [role=status]').innerText.startsWith('From')")
    assert float(said.inner_text().rpartition(" by ")[2].split()[0]) < 1e-5
    # What it would save for as many tokens as there is room for, and no more.
    counts = window.page.locator("#cache tbody td:first-child").all_inner_texts()
    assert counts == ["1", "10", "50", "100", "500", "1,000", f"{CONTEXT - len(TEXT) - 5:,}"]


def test_playing_goes_on_until_it_is_paused(window: Window) -> None:
    window.type(TEXT)
    play = window.show("appended", "#loop-play")
    play.click()
    window.until(f"explorer.run.tokens.length >= {len(TEXT) + 3}")
    play.click()
    window.until("!explorer.busy")
    window.page.wait_for_timeout(100)
    count = window.page.evaluate("explorer.run.tokens.length")
    window.page.wait_for_timeout(600)
    assert window.page.evaluate("explorer.run.tokens.length") == count


def test_a_training_step_is_that_of_python(window: Window, python: LanguageModel) -> None:
    window.type(TEXT)
    window.show("training", "#optimizer").select_option("sgd")
    window.page.locator("#rate").select_option("1e-1")
    window.page.locator("#train").click()
    window.until("document.querySelector('#trained table')")
    expected = training_step(python.inspect(TEXT).run.subject, list(TEXT.encode()), "sgd", 0.1)
    said = window.page.locator("#trained .big").inner_text().split(" → ")
    np.testing.assert_allclose(
        [float(x) for x in said], [expected["loss"], expected["loss_after"]], rtol=1e-3
    )
    assert expected["loss_after"] < expected["loss"]
    rows = window.page.locator("#trained table tbody tr")
    assert rows.count() == len(TEXT) - 1
    numbers = rows.nth(3).locator(".num").all_inner_texts()
    entry = expected["predictions"][3]
    assert float(numbers[0]) == pytest.approx(entry["loss"], rel=1e-3)
    assert float(numbers[1]) == pytest.approx(entry["loss_after"], rel=1e-3)


@pytest.fixture(scope="module")
def wide() -> Iterator[tuple[LanguageModel, int]]:
    """A model with as many tokens as GPT-2 has: all bytes, and pairs of them."""
    ranks = {bytes([i]): i for i in range(256)}
    for i in range(256, GPT2_VOCABULARY - 1):
        ranks[bytes(divmod(i, 256))] = i
    tokenizer = BPETokenizer(Vocabulary(ranks, {END_OF_TEXT: len(ranks)}), len(ranks))
    assert tokenizer.vocab_size == GPT2_VOCABULARY
    model = tiny_model(tokenizer, d_model=16, num_heads=2)
    with serving(model, limits=Limits(num_slots=1, max_length=16)) as client:
        yield LanguageModel(model), client.port


def test_sliders_redraw_within_a_frame_at_gpt2s_vocabulary(
    browser: Any, wide: tuple[LanguageModel, int]
) -> None:
    _, port = wide
    with Window.opened(browser, port) as window:
        window.show("sampling", "#kept")
        window.until("document.querySelector('#kept').innerText.includes('50,257')")
        times = "performance.getEntriesByName('sampling').map(entry => entry.duration)"
        for name, values in (
            ("temperature", (0.4, 0.7, 1.0, 1.3, 1.9)),
            ("top_k", (1, 5, 10, 15, 20)),
            ("top_p", (0.1, 0.3, 0.5, 0.7, 0.9)),
        ):

            def moved(name: str = name, values: tuple[float, ...] = values) -> list[float]:
                window.page.evaluate("performance.clearMeasures('sampling')")
                for i, value in enumerate(values * 2):
                    _move(window, name, value)
                    window.until(f"{times}.length > {i}")
                return window.page.evaluate(times)

            window.within(16, moved, scripted=True)
        assert not window.errors


def test_kept_sets_at_gpt2s_vocabulary_are_pythons(
    browser: Any, wide: tuple[LanguageModel, int]
) -> None:
    import jax.numpy as jnp

    from gpt2_jax.inference.cuts import kept

    python, port = wide
    grid = [(t, k, p) for t in (0.7, 1.0, 1.5) for k in (0, 40, 1000) for p in (0.5, 0.9, 1.0)]
    with Window.opened(browser, port) as window:
        answers = json.loads(
            window.page.evaluate(
                """async (grid) => {
                  const { prepare, cut } = await import("/static/core/sampling.js");
                  const p = prepare((await explorer.get("logits")).data);
                  return JSON.stringify(grid.map(([temperature, top_k, top_p]) => {
                    const { ids, probs } = cut(p, { temperature, top_k, top_p });
                    return [[...ids], [...probs]];
                  }));
                }""",
                grid,
            )
        )
        text = window.state("text")
    logits = python.inspect(text)["logits"]
    for (t, k, p), (ids, probs) in zip(grid, answers, strict=True):
        scaled = (logits - logits.max()) / np.float32(t)
        mask = kept(jnp.asarray(scaled)[None], jnp.asarray([k]), jnp.asarray([p]), jnp.zeros(1))[0]
        mass = np.exp(scaled.astype(np.float64))
        expected = np.where(np.asarray(mask), mass, 0) / mass[np.asarray(mask)].sum()
        found = np.zeros(len(logits))
        found[ids] = probs
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        # Sums of 50,257 float32 differ by roundings, of which a token at the border is worth less.
        differing = np.flatnonzero((found > 0) != np.asarray(mask))
        assert mass[differing].sum() <= 1e-6 * mass.sum(), (t, k, p)
