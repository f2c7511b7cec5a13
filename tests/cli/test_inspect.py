"""Tests `gpt2-jax inspect`: its files, what they hold, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt2_jax
from gpt2_jax.cli.main import main
from gpt2_jax.interpret.figures.draw import PICTURES
from tests.inference.tiny import make_run

_TEXT = "ab ab\n\té"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("inspect") / "run"))


@pytest.fixture(scope="module")
def out(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inspect") / "figures"
    words = ["--text", _TEXT, "--out", str(out), "--formats", "svg", "--query", "-2", "--no_lesson"]
    assert main(["inspect", "--model", model, *words]) == 0
    return out


def _index(out: Path) -> dict[str, Any]:
    return json.loads((out / "numbers.json").read_text(encoding="utf-8"))


def test_every_figure_is_written_whole_and_named(out: Path) -> None:
    index = _index(out)
    names = {f"{name}.svg" for name in PICTURES} | {"numbers.json", "numbers.npz"}
    assert {path.name for path in out.iterdir()} == names == set(index["files"])
    for name in PICTURES:
        content = (out / f"{name}.svg").read_text(encoding="utf-8")
        assert content.startswith("<?xml") and content.rstrip().endswith("</svg>")
        assert index["figures"][name].endswith(".")


def test_the_numbers_are_those_of_the_python_api(model: str, out: Path) -> None:
    inspection = gpt2_jax.load(model).inspect(_TEXT)
    index = _index(out)
    with np.load(out / "numbers.npz") as arrays:
        assert set(arrays) == set(index["arrays"]) and "logits/8" in arrays
        for address in arrays:
            np.testing.assert_array_equal(arrays[address], inspection[address])
            assert list(arrays[address].shape) == index["arrays"][address]
    assert index["summary"] == json.loads(json.dumps(inspection.summary()))
    chosen = index["selection"]
    assert (chosen["query"], chosen["position"]) == (7, 8)
    induction_LxH = inspection["head_scores"][..., 2]
    assert induction_LxH[chosen["layer"], chosen["head"]] == induction_LxH.max()


def test_json_names_the_files_and_interventions_change_the_numbers(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One figure is enough here, and tests/serve/test_lesson.py is about lessons.
    opened: list[Any] = []
    monkeypatch.setattr(
        "gpt2_jax.serve.lesson.lesson", lambda *given: opened.append(given) or b"page"
    )
    monkeypatch.setattr(
        "gpt2_jax.interpret.figures.draw.PICTURES", {"next_tokens": PICTURES["next_tokens"]}
    )
    swap = {"site": "resid_post", "layer": 1, "position": 2, "from": {"text": "xyz", "position": 1}}
    changes = tmp_path / "changes.json"
    changes.write_text(json.dumps({"swaps": [swap]}), encoding="utf-8")
    words = ["--text", "abc", "--out", str(tmp_path / "o"), "--language", "zh", "--formats", "png"]
    words += ["--interventions", str(changes), "--json"]
    assert main(["inspect", "--model", model, *words]) == 0
    document = json.loads(capsys.readouterr().out)
    names = ["lesson.html", "next_tokens.png", "numbers.json", "numbers.npz"]
    assert document["files"] == names
    ((inspection, state, language),) = opened
    assert len(inspection.tokens) == 3 and language == "zh"
    assert state["interventions"] == {"swaps": [swap]} and state["query"] == document["query"]
    assert (tmp_path / "o" / "lesson.html").read_bytes() == b"page"
    assert document["tokens"] == 3 and document["position"] == 2
    assert (tmp_path / "o" / "next_tokens.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "o" / "numbers.npz") as arrays:
        # The last position goes on as the other text did behind its last block.
        expected = gpt2_jax.load(model).inspect("xyz")["logits/1"]
        np.testing.assert_allclose(arrays["logits/2"], expected, rtol=1e-5, atol=1e-5)


def test_a_lesson_is_written_of_a_text_whose_stream_is_in_part_of_another(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt2_jax.interpret.figures.draw.PICTURES", {})
    swap = {"site": "resid_post", "layer": 0, "position": 1, "from": {"text": "xy", "position": 1}}
    changes = tmp_path / "changes.json"
    changes.write_text(json.dumps({"swaps": [swap]}), encoding="utf-8")
    words = ["--text", "abc", "--out", str(tmp_path / "o"), "--interventions", str(changes)]
    assert main(["inspect", "--model", model, *words]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(
        r"3 tokens; layer \d, head \d, query \d: the head has the highest previous-token score, "
        r"0\.\d\d; the query has the most attention on the previous token among those of the "
        "second half of the text",
        first,
    )
    page = (tmp_path / "o" / "lesson.html").read_text(encoding="utf-8")
    assert '"attribution/2/' in page and '"attribution/1/' not in page


def _swap(layer: int = 0, position: int = 0, text: str = "b") -> dict[str, Any]:
    donor = {"text": text, "position": 0}
    return {"site": "mlp", "layer": layer, "position": position, "from": donor}


_CHANGES = {
    "bad.json": {"head": []},
    "rows.json": {"heads": [[0, 1, 0], [0, 1]]},
    "from.json": {"swaps": [{"site": "mlp", "layer": 0, "position": 0}]},
    "place.json": {"neurons": [[1, 999, 0.5]]},
    "again.json": {"heads": [[0, 1, 0], [0, 1, 2]]},
    "swaps.json": {"swaps": [_swap(), _swap(position=1)]},
    "layer.json": {"swaps": [_swap(layer=99)]},
    "donor.json": {"swaps": [_swap(text="b" * 40)]},
}
"""Files of `--interventions` with a mistake."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "pass --text TEXT, --text_file FILE or --ids IDS"),
        (["--text", "a", "--ids", "1"], "not allowed with argument --text"),
        (["--text", "a", "--formats", "svg,pgn"], "--formats must be of svg, png, pdf, not 'pgn'"),
        (["--text", "a", "--formats", ""], "--formats must be of"),
        (["--ids", "1,x"], "--ids must be token ids such as 1,2,3, not '1,x'"),
        (["--text_file", "missing"], "cannot read --text_file missing"),
        (["--text", "a", "--language", "de"], "--language"),
        (
            ["--text", "a", "--interventions", "bad.json"],
            "--interventions bad.json: unknown 'head'; did you mean 'heads'?; the form",
        ),
        (
            ["--text", "a", "--interventions", "from.json"],
            "--interventions from.json: swaps[0] must be from a text or tokens; the form is {",
        ),
        (
            ["--text", "a", "--interventions", "rows.json"],
            "--interventions rows.json: heads[1] must hold indices and a factor, not [0, 1]; the",
        ),
        (
            ["--text", "a", "--interventions", "place.json"],
            "--interventions place.json: neurons[0]: neuron must be between 0 and",
        ),
        (
            ["--text", "a", "--interventions", "again.json"],
            "--interventions again.json: heads[1] names [0, 1] again: give it one factor\n",
        ),
        (
            ["--text", "a", "--interventions", "layer.json"],
            "--interventions layer.json: swaps[0]: layer must be between 0 and 1, not 99\n",
        ),
        (
            ["--text", "a", "--interventions", "donor.json"],
            "--interventions donor.json: swaps[0]: text of 40 tokens exceeds",
        ),
        (
            ["--text", "a", "--interventions", "swaps.json"],
            "--interventions swaps.json: swaps[1]: position must be between 0 and 0, not 1\n",
        ),
        (["--text", "ab", "--layer", "2"], "--layer must be between 0 and 1, not 2"),
        (["--text", "ab", "--head", "-1"], "--head must be between 0 and 3, not -1"),
        (["--text", "ab", "--query", "2"], "--query must be a position of the text, from -2 to 1"),
        (["--text", "a" * 40], "text of 40 tokens exceeds"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    model: str,
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, changes in _CHANGES.items():
        Path(name).write_text(json.dumps(changes), encoding="utf-8")
    assert main(["inspect", "--model", model, "--out", "o", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    # It is said only of what has another.
    others = {"bad.json", "from.json", "rows.json"}
    assert ("; the form is {" in err) == bool(others & {*words})
    assert not Path("o").exists()


def test_a_folder_with_something_else_is_left_alone(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lens.png").write_bytes(b"mine")
    assert main(["inspect", "--model", model, "--text", "a", "--out", str(tmp_path)]) == 2
    assert "holds something else (lens.png)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lens.png"]


def test_a_missing_matplotlib_names_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "o"
    # Said before a model is looked for.
    assert main(["inspect", "--model", "missing", "--text", "a", "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "gpt2-jax inspect needs the plots extra: pip install 'gpt2_jax[plots]'" in err
    assert not out.exists()
