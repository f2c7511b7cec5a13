"""Tests one-file lessons: what they hold, and that they load nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax.config import ModelConfig
from gpt2_jax.interpret.views import VIEWS, find
from gpt2_jax.serve.bundle import bundle
from gpt2_jax.serve.languages import LANGUAGES
from gpt2_jax.serve.lesson import lesson
from gpt2_jax.serve.lesson_arrays import focus_of, rings
from gpt2_jax.tokenizers.byte import ByteTokenizer

_L, _H, _T = 3, 2, 5
_STATIC = Path(__file__).parents[2] / "gpt2_jax" / "serve" / "static"


class _Inspection:
    """Answers every address with small noise that only it has, without a model."""

    def __init__(self) -> None:
        self.tokens = list(range(_T))
        subject = types.SimpleNamespace(tokenizer=ByteTokenizer(), config=ModelConfig())
        self.run = types.SimpleNamespace(subject=subject)

    def __getitem__(self, address: str) -> np.ndarray:
        view, _ = find(address)
        rng = np.random.default_rng(list(address.encode()))
        name = view.address.split("/")[0]
        if name == "neurons":
            return np.stack([np.tile(np.arange(32.0), (_T, 1))] * 3, -1).astype(np.float32)
        if address == f"logits/{_T - 1}":
            return self["logits"]
        if name in ("lens", "lens_grid", "neuron"):  # they have ids, of which each gets a name
            return rng.integers(0, 256, (4, 12)).astype(np.float32)
        return rng.normal(size=400 if name == "residual" else 20).astype(np.float32)

    def views(self) -> list[dict[str, str]]:
        return [{"address": view.address} for view in VIEWS]

    def summary(self) -> dict[str, Any]:
        top = [[[10 * t + i, "</script><!--", 0.2] for i in range(5)] for t in range(_T)]
        tokens = [{"id": t, "text": "\u2028<b>", "top": top[t]} for t in self.tokens]
        return {"tokens": tokens, "next": top[-1], "config": {"num_layers": _L, "num_heads": _H}}


def _embedded(page: bytes) -> dict[str, Any]:
    match = re.search(rb'<script type="application/json" id="lesson">(.*?)</script>', page, re.S)
    assert match is not None
    return json.loads(match[1])


def _array(lesson_json: dict[str, Any], address: str) -> np.ndarray:
    text = lesson_json["arrays"][address]
    if text.startswith("="):
        text = lesson_json["arrays"][text[1:]]
    return np.load(io.BytesIO(gzip.decompress(base64.b64decode(text))), allow_pickle=False)


_STATE = {"model": "m", "layer": 1, "head": 1, "query": 3, "key": 2}


def test_a_lesson_holds_every_array_of_a_small_text_bit_by_bit() -> None:
    inspection: Any = _Inspection()
    held = _embedded(lesson(inspection, _STATE, "zh"))
    assert held["left_out"] == 0
    assert held["state"] == {**_STATE, "tokens": inspection.tokens, "language": "zh"}
    assert held["summary"]["tokens"] == inspection.summary()["tokens"]
    for view in VIEWS:  # none is forgotten, however many there will be
        is_column = view.address.startswith("w_")  # too many for a file
        found = any(view.pattern.fullmatch(address) for address in held["arrays"])
        assert found != is_column, view.address
    for address in held["arrays"]:
        np.testing.assert_array_equal(_array(held, address), inspection[address])
    # 3 layers with 2 heads: patterns; 5 positions with 2 norms in 3 layers, and the final norm.
    names = [address.split("/")[0] for address in held["arrays"]]
    assert names.count("pattern") == _L * _H and names.count("ln") == 2 * _L * _T + _T
    assert held["arrays"][f"logits/{_T - 1}"] == "=logits"


def test_every_language_of_the_page_is_offered() -> None:
    assert {path.stem for path in (_STATIC / "i18n").glob("*.json")} == {*LANGUAGES}


def test_what_is_near_comes_first_and_the_rest_is_counted() -> None:
    inspection: Any = _Inspection()
    everything = [address for ring in rings(inspection, focus_of(_STATE, _T)) for address in ring]
    held = _embedded(lesson(inspection, _STATE, most_bytes=40_000))
    assert len(held["arrays"]) + held["left_out"] == len(everything) == len(set(everything))
    assert held["left_out"] > 0 and sum(map(len, held["arrays"].values())) < 40_000
    near = (
        "pattern/1/1",
        "row/1/1/3",
        "residual/3",
        "residual/2",
        "residual/4",
        "qkv/1/0",
        "norms",
    )
    assert set(near) <= held["arrays"].keys()
    assert not held["arrays"].keys() & {"residual/0", "ln/0/1/0"}
    # What the lesson opens with is there however little room there is.
    least = _embedded(lesson(inspection, _STATE, most_bytes=0))
    assert set(least["arrays"]) == set(rings(inspection, focus_of(_STATE, _T))[0])


def test_the_vector_of_a_token_is_as_near_as_the_positions_that_it_may_follow() -> None:
    inspection: Any = _Inspection()
    found = rings(inspection, focus_of(_STATE, _T))
    ring_of = {address: i for i, ring in enumerate(found) for address in ring}
    for t in range(_T):
        assert ring_of[f"output/{10 * t}"] == (0 if t in (2, 3, 4) else 3)
    # It follows position 2, which is shown, and is among the best behind position 0, which is not.
    assert ring_of["output/3"] == 0


def test_nothing_can_be_loaded_and_only_its_own_code_runs() -> None:
    page = lesson(_Inspection(), _STATE).decode()  # pyright: ignore[reportArgumentType]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy.start() < page.index("<style") < page.index("<script")
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules["default-src"] == "'none'" and "connect-src" not in rules
    assert "unsafe" not in policy[1] and "http" not in policy[1] and "'self'" not in policy[1]
    for kind, rule in (("importmap", "script-src"), ("module", "script-src"), (None, "style-src")):
        tag = "style" if kind is None else f'script type="{kind}"'
        inline = re.search(rf"<{tag}>(.*?)</", page, re.S)
        assert inline is not None
        digest = base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules[rule]
    # All that is left are the page's own elements: no address, no second end of the data.
    assert not re.search(r'\b(src|href)="(?!#|data:)', page) and page.count("</script>") == 3
    assert "\u2028" not in page


def test_modules_find_each_other_by_bare_names() -> None:
    page = lesson(_Inspection(), _STATE).decode()  # pyright: ignore[reportArgumentType]
    found = re.search(r'<script type="importmap">(.*?)</script>', page, re.S)
    assert found is not None
    imports = json.loads(found[1])["imports"]
    assert set(imports) == {
        f"gpt2_jax/{path.relative_to(_STATIC).as_posix()}" for path in _STATIC.rglob("*.js")
    }
    for url in imports.values():
        source = base64.b64decode(url.removeprefix("data:text/javascript;base64,")).decode()
        names = re.findall(r"""(?:\bfrom|\bimport)\s*\(?\s*["']([^"']+)["']""", source)
        assert set(names) <= set(imports)
    assert set(_embedded(page.encode())["json"]) >= {"i18n/en.json", "i18n/zh.json"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.js": 'import "./b.js";'}, r"a.js imports ./b.js, which is no module"),
        ({"a.js": "new URL('x', import.meta.url)"}, "a.js uses import.meta"),
        ({"index.html": '<head></head><script src="https://x/y.js"></script></body>'}, "no file"),
        ({"index.html": "<head></head>"}, "index.html has no </body>"),
    ],
)
def test_what_has_no_place_in_one_file_is_refused(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    page = {"index.html": '<head></head><body><script src="a.js"></script></body>', "a.js": ""}
    for name, content in (page | files).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        bundle(tmp_path, {}, "en")
