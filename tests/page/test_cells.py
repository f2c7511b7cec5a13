"""Tests that the page computes again what it shows, for cells that are clicked at random."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.interpret.interventions import Interventions
from tests.page.window import Window

pytestmark = pytest.mark.chromium
TEXT = "so it goes, it goes"
# What of a section is clicked, and how many times. Of a vector, each entry is a cell.
_CLICKED = {
    "prompt": ("#next .value", 20),
    "embedding": ("canvas:nth-of-type(3)", 80),
    "journey": (".node", 40),
    "layernorm": ("div:nth-of-type(4) canvas", 40),
    "qkv": ("canvas", 80),
    "scores": ("#score-map", 100),
    "softmax": ("td:nth-child(4) .value", 40),
    "weighted": ("canvas:nth-of-type(2)", 60),
    "projection": ("canvas", 40),
}

# Clicks a part of an element, and returns the number that is explained and what the page makes of
# it. A sum is as exact as its terms are large: `size` is their magnitude.
_CLICK = """
async ([selector, which, x, y]) => {
  const { chartOf } = await import("/static/core/canvas.js");
  const parts = document.querySelectorAll(selector);
  const part = parts[Math.floor(which * parts.length)];
  const box = part.getBoundingClientRect();
  const before = explorer.explained;
  const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
  const chart = chartOf(part);
  if (chart) {
    const { cell, margin, shape: [rows, columns], options, data } = chart;
    const i = Math.floor(y * rows), j = Math.floor(x * columns);
    if (i * columns + j >= data.length || options.hidden?.(i, j)) return null;
    at.clientX = box.left + margin.left + (j + 0.5) * cell.width;
    at.clientY = box.top + margin.top + (i + 0.5) * cell.height;
  }
  part.dispatchEvent(new MouseEvent("click", { ...at, bubbles: true }));
  while (explorer.explained === before) await new Promise((resolve) => setTimeout(resolve, 1));
  const { address, index, value, operands, compute } = explorer.explained;
  if (!compute) return null; // a parameter of the model
  const values = operands.map((operand) => operand[1]);
  const magnitude = (x) => (typeof x === "number" ? Math.abs(x) : Float64Array.from(x, Math.abs));
  const isSum = values.some((x) => typeof x !== "number") || /^(embedding|ln)/.test(address);
  const again = compute(...values);
  return { address, index, value, again, size: isSum ? compute(...values.map(magnitude)) : value };
}
"""


def test_500_random_cells_are_computed_again_and_are_the_models(
    window: Window, python: LanguageModel
) -> None:
    window.type(TEXT)
    inspection = python.inspect(TEXT)
    rng, count, views = random.Random(0), 0, set()
    for section, (selector, clicks) in _CLICKED.items():
        for _ in range(4):
            place = {name: rng.randrange(size) for name, size in (("layer", 2), ("head", 4))}
            window.set(query=rng.randrange(len(TEXT)), **place)
            window.show(section, selector)
            found = 0
            while found < clicks // 4:
                cell = _click(window, f"#{section} .body {selector}", rng)
                if cell is not None:
                    _check(cell, inspection)
                    views.add(cell["address"].split("/")[0])
                    found += 1
            count += found
    assert count == 500
    assert views == {"logits", "embedding", "norms", "ln", "qkv", "row", "z", "heads"}


def test_the_output_of_a_changed_head_is_computed_with_its_factor(
    window: Window, python: LanguageModel
) -> None:
    window.type(TEXT)
    window.set(layer=1, head=2, query=6, interventions={"heads": [[1, 2, -2.5]]})
    inspection = python.inspect(TEXT, Interventions(heads={(1, 2): -2.5}))
    rng = random.Random(0)
    for section, canvas in (("weighted", "canvas:nth-of-type(2)"), ("merged", "canvas")):
        window.show(section, canvas)
        clicked: list[str] = []
        while clicked.count("z/1/2") < 3:
            cell = _click(window, f"#{section} .body {canvas}", rng)
            clicked.append(cell["address"])
            _check(cell, inspection)


def _click(window: Window, selector: str, rng: random.Random) -> Any:
    return window.page.evaluate(_CLICK, [selector, *(rng.random() for _ in range(3))])


def _check(cell: dict[str, Any], inspection: Any) -> None:
    assert abs(cell["again"] - cell["value"]) <= 1e-5 * abs(cell["size"]), cell
    if cell["address"] == "logits":  # what is shown is their softmax
        logits = inspection["logits"].astype(np.float64)
        own = np.exp(logits - logits.max())[cell["index"][0]] / np.exp(logits - logits.max()).sum()
    else:
        own = inspection[cell["address"]][tuple(cell["index"])]
    assert own == pytest.approx(cell["value"], rel=1e-5, abs=1e-5 * abs(cell["size"])), cell
