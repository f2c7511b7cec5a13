"""Tests the parts of figures that decide what is seen: labels, the head that is shown, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.interpret.figures import folder, style
from gpt2_jax.interpret.figures.draw import PICTURES
from gpt2_jax.interpret.figures.fonts import Fonts
from gpt2_jax.interpret.figures.labels import Labels, shortened, written
from gpt2_jax.interpret.figures.selection import select
from gpt2_jax.interpret.figures.source import Source
from gpt2_jax.tokenizers.byte import ByteTokenizer


class _Inspected:
    """Eight tokens `abcabcab` in a model of two layers and two heads, with patterns as told."""

    def __init__(self, patterns: dict[tuple[int, int], np.ndarray], scores: np.ndarray) -> None:
        self.tokens = list(b"abcabcab")
        self._arrays: dict[str, np.ndarray] = {"head_scores": scores}
        for (layer, head), pattern in patterns.items():
            self._arrays[f"pattern/{layer}/{head}"] = pattern
            for query in range(8):
                row = pattern[query]
                self._arrays[f"row/{layer}/{head}/{query}"] = np.stack([row, row > 0, row, row])

    def __getitem__(self, address: str) -> np.ndarray:
        return self._arrays[address]

    def summary(self) -> dict[str, Any]:
        return {"config": {"num_layers": 2, "num_heads": 2}, "tokens": []}


def _source(scores: np.ndarray) -> Source:
    pattern = np.tri(8, dtype=np.float32) / np.arange(1, 9, dtype=np.float32)[:, None]
    found = np.zeros((8, 8), np.float32)
    found[:, 0] = 1
    found[5] = np.eye(8)[2]  # the earlier c itself: no induction
    found[6] = 0.3 * np.eye(8)[1] + 0.4 * np.eye(8)[4] + 0.3 * np.eye(8)[0]  # behind both a
    found[4] = 0.6 * np.eye(8)[2] + 0.4 * np.eye(8)[0]  # behind b
    patterns = {(layer, head): pattern for layer in range(2) for head in range(2)}
    inspected = _Inspected(patterns | {(1, 0): found}, scores)
    return Source(inspected, Labels(ByteTokenizer(), lambda character: True))


def _scores(previous: float, induction: float) -> np.ndarray:
    scores = np.full((2, 2, 3), 0.01, np.float32)
    scores[0, 1, 0], scores[1, 0, 2] = previous, induction
    return scores


def test_a_head_of_induction_is_shown_with_the_query_that_shows_it() -> None:
    chosen = select(_source(_scores(previous=0.9, induction=0.5)))
    assert (chosen.layer, chosen.head, chosen.query, chosen.position) == (1, 0, 6, 7)
    assert chosen.rule == (
        "the head has the highest induction score, 0.50; the query has the most attention behind "
        "an earlier occurrence of its token"
    )


def test_without_induction_the_head_of_the_previous_token_is_shown() -> None:
    chosen = select(_source(_scores(previous=0.9, induction=0.09)))
    # Its weights are uniform: the previous token gets most from the first query of the half.
    assert (chosen.layer, chosen.head, chosen.query) == (0, 1, 4)


def test_what_is_asked_for_is_shown_and_its_range_named() -> None:
    source = _source(_scores(previous=0.9, induction=0.5))
    chosen = select(source, layer=0, head=0, query=-1, position=2)
    assert (chosen.layer, chosen.head, chosen.query, chosen.position) == (0, 0, 7, 2)
    assert chosen.rule == "the head was asked for; the query was asked for"
    assert select(source, layer=0).layer == 0
    with pytest.raises(UserError, match=r"--position must be a position .* from -8 to 7, not 8"):
        select(source, position=8)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" the", "␣the"),
        ("\n\t\r\x1b", "\\n\\t\\r\\x1b"),
        ("\\n", "\\\\n"),
        (b"\xe4\xbd".decode(errors="surrogateescape"), "\\xe4\\xbd"),
        ("你", "\\u4f60"),
        ("🦜", "\\U0001f99c"),
        ("\u200d\u202e\xa0\xad", "\\u200d\\u202e\\xa0\\xad"),
        ("e\u0301", "e\u25cc\u0301"),
        ("שלום", "שלום"),
        ("$x_1$", "$x_1$"),
    ],
)
def test_labels_are_legible(text: str, label: str) -> None:
    assert "".join(written(text, lambda character: character not in "你🦜")) == label


def test_labels_are_cut_between_escapes() -> None:
    assert shortened(["\\x80"] * 3, 12) == "\\x80" * 3
    assert shortened(["\\x80"] * 4, 12) == "\\x80\\x80…"
    labels = Labels(ByteTokenizer(), lambda character: True)
    assert labels.label(256) == "<|endoftext…" and labels.label(0xE4) == "\\xe4"


def test_the_fonts_of_matplotlib_have_latin_letters_and_not_all_others() -> None:
    fonts = Fonts()
    assert fonts.drawable("é") and fonts.drawable("␣") and fonts.families[0] == "DejaVu Sans"
    assert not fonts.drawable("\U00012000")  # cuneiform


def test_equal_figures_are_equal_files_one_column_wide() -> None:
    source = _source(_scores(previous=0.9, induction=0.5))
    chosen = select(source)
    files = []
    for _ in range(2):
        with style.styled(Fonts().families) as figure_class:
            picture = PICTURES["arcs"](source, chosen, figure_class)
            files.append(style.encoded(picture.figure, ["svg", "png"]))
    assert files[0] == files[1]
    assert f'width="{72 * style.WIDTH:g}pt"' in files[0]["svg"].decode()
    assert "position 6 (a, bold)" in picture.caption and "<text" not in files[0]["svg"].decode()


def test_a_folder_is_written_again_and_shared_with_nothing(tmp_path: Path) -> None:
    arrays = {"row/0/1/2": np.arange(3, dtype=np.float32)}
    folder.write(tmp_path, {"arcs.svg": b"a", "arcs.png": b"b"}, arrays, {"model": "m"})
    (tmp_path / "arcs.svg.host-1-0.tmp").write_bytes(b"left by a kill")
    folder.refuse_other_folder(tmp_path)
    folder.write(tmp_path, {"arcs.svg": b"c"}, arrays, {"model": "m"})
    names = ["arcs.svg", "numbers.json", "numbers.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    index = json.loads((tmp_path / "numbers.json").read_bytes())
    assert index["files"] == names and index["model"] == "m"
    with np.load(tmp_path / "numbers.npz") as found:
        np.testing.assert_array_equal(found["row/0/1/2"], [0, 1, 2])
    (tmp_path / "thesis.tex").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds something else \(thesis.tex\)"):
        folder.refuse_other_folder(tmp_path)
