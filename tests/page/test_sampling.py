"""Compares the page's sampling with Python's, in Node, without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt2_jax.inference import sampling
from gpt2_jax.inference.cuts import kept
from gpt2_jax.inference.penalties import History

FOLDER = Path(__file__).parents[2] / "gpt2_jax/serve/static"

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="Node runs the page's functions")

_CUTS = ("temperature", "top_k", "top_p")
_SCRIPT = """
import { readFileSync } from "node:fs";
const { prepare, cut, draw } = await import(process.argv[2]);
const asked = JSON.parse(readFileSync(0, "utf8"));
const answers = asked.map(({ logits, options, drawn }) => {
  const p = prepare(Float32Array.from(logits));
  const { ids, probs } = cut(p, options);
  return { ids: [...ids], probs: [...probs], drawn: draw(p, options, drawn) };
});
process.stdout.write(JSON.stringify(answers));
"""


def _in_node(cases: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    script = folder / "sampling.mjs"
    script.write_text(_SCRIPT)
    module = folder / "module.mjs"  # Node takes .js for CommonJS without a package.json
    shutil.copy(FOLDER / "core/sampling.js", module)
    command = ["node", str(script), str(module)]
    answer = subprocess.run(command, input=json.dumps(cases), text=True, capture_output=True)
    assert not answer.returncode, answer.stderr
    return json.loads(answer.stdout)


def _of_python(
    logits: np.ndarray, options: list[dict[str, Any]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (kept ids, lowest first, their probabilities) at each of the options."""
    columns = {name: np.array([each[name] for each in options]) for name in _CUTS}
    warm = np.where(columns["temperature"] > 0, columns["temperature"], 1).astype(np.float32)
    scaled = (logits - logits.max()) / warm[:, None]
    cuts = [jnp.asarray(columns[name]) for name in ("top_k", "top_p")]
    masks = np.asarray(jax.jit(kept)(jnp.asarray(scaled), *cuts, jnp.zeros(len(options))))
    masks = np.where(
        columns["temperature"][:, None] > 0, masks, np.arange(len(logits)) == logits.argmax()
    )
    found = []
    for mask, row in zip(masks, scaled.astype(np.float64), strict=True):
        mass = np.exp(row[mask])
        found.append((np.flatnonzero(mask), mass / mass.sum()))
    return found


def _logits() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    normal = rng.normal(0, 3, 997)
    return {
        "normal": normal,
        "ties": np.round(normal),
        "all equal": np.zeros(64),
        "signed zeros": np.where(np.arange(64) % 2, 0.0, -0.0),
        "one": np.array([3.0]),
        "far": np.array([0.0, -1e4, 88.0, -3e38, 88.0]),
        "close": 1e3 + np.arange(50) % 7 * 1e-4,
    }


def _options() -> list[dict[str, Any]]:
    return [
        {"temperature": t, "top_k": k, "top_p": p, "seed": 2**32 - 1 - i}
        for i, t in enumerate([0, 1e-3, 0.7, 1.0, 1.3, 50.0, 1e30])
        for k in [0, 1, 2, 40, 10**6]
        for p in [0.0, 0.1, 0.5, 0.9, 1.0]
    ]


def test_the_page_keeps_and_draws_what_python_does(tmp_path: Path) -> None:
    options, texts = _options(), [logits.astype(np.float32) for logits in _logits().values()]
    cases = [
        {"logits": logits.tolist(), "options": each, "drawn": i % 5}
        for logits in texts
        for i, each in enumerate(options)
    ]
    answers = iter(_in_node(cases, tmp_path))
    for logits in texts:
        for each, (ids, probs) in zip(options, _of_python(logits, options), strict=True):
            answer = next(answers)
            order = np.argsort(answer["ids"])
            assert np.array(answer["ids"])[order].tolist() == ids.tolist(), each
            np.testing.assert_allclose(np.array(answer["probs"])[order], probs, atol=1e-6)
            assert answer["drawn"] in ids


def test_the_page_draws_the_token_of_a_seed(tmp_path: Path) -> None:
    logits = np.random.default_rng(1).normal(0, 3, 301).astype(np.float32)
    options = [
        {"temperature": t, "top_k": k, "top_p": p, "seed": seed}
        for seed in range(12)
        for t, k, p in [(1.0, 0, 1.0), (0.8, 40, 0.95)]
    ]
    cases = [
        {"logits": logits.tolist(), "options": each, "drawn": i} for i, each in enumerate(options)
    ]
    answers = _in_node(cases, tmp_path)
    drawn = [_draw(logits, each, i) for i, each in enumerate(options)]
    assert [answer["drawn"] for answer in answers] == drawn
    assert len(set(drawn)) > 5


_drawn = jax.jit(sampling.draw)


def _draw(logits: np.ndarray, options: dict[str, Any], drawn: int) -> int:
    values = dict(options)
    seed = values.pop("seed")
    settings = sampling.settings_of(sampling.SamplingOptions(**values), (), seed)
    key = sampling.key_of_choice(jnp.asarray(settings.keys_Bx2), jnp.uint32(0))
    rows = sampling.Settings(
        *(jnp.asarray(x)[None] for x in settings[:4]),
        penalties=type(settings.penalties)(*(jnp.asarray(x)[None] for x in settings.penalties)),
        ends_BxE=jnp.asarray(settings.ends_BxE)[None],
        keys_Bx2=key[None],
    )
    V = len(logits)
    history = History(
        jnp.zeros((1, 4), jnp.int32),
        jnp.ones(1, jnp.int32),
        jnp.zeros((1, V), jnp.int32),
        jnp.zeros((1, V), bool),
    )
    token = _drawn(jnp.asarray(logits)[None], rows, history, jnp.asarray([drawn]))
    return int(token[0])
