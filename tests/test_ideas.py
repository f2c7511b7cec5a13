"""Tests that every idea of GPT-2 has its explanation, its view and its function.

The table is tests/ideas.py. The explanations are docs/how_gpt2_works.md and its Chinese version;
their lines of Python are run on a model that has the sizes of the quickstart.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import json
import re
from pathlib import Path
from typing import Any

import jax
import pytest

import gpt2_jax
from gpt2_jax import config as config_lib
from gpt2_jax.formats.model import Model
from gpt2_jax.interpret.views import VIEWS
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.ideas import IDEAS, PANELS, SECTIONS
from tests.inference.tiny import noisy_params

_ROOT = Path(__file__).parents[1]
_STATIC = _ROOT / "gpt2_jax" / "serve" / "static"
_PAGES = {"en": "how_gpt2_works.md", "zh": "how_gpt2_works.zh.md"}
_RUN = "runs/quickstart"
_CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FIGURE = re.compile(r"^!\[[^\]]+\]\((\S+)\)\n\n\*[^*]+\*$", re.MULTILINE)
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+|\d+\.\d+")


@functools.cache
def _page(language: str) -> dict[str, str]:
    """Returns the text of each anchor of a page; of the empty anchor, what stands before them."""
    text = (_ROOT / "docs" / _PAGES[language]).read_text(encoding="utf-8")
    start, *rest = re.split(r'^<a id="([\w-]+)"></a>\n', text, flags=re.MULTILINE)
    return {"": start} | dict(zip(rest[::2], rest[1::2], strict=True))


def _prose(language: str, anchor: str) -> str:
    """Returns an explanation without code, figures, tables, and the line with the idea's place."""
    text = _FIGURE.sub("", _CODE.sub("", _page(language)[anchor]))
    return re.sub(r"^(\*[^*\n]+\* .*|#.*|\|.*)$", "", text, flags=re.MULTILINE)


def _resolve(path: str) -> Any:
    """Returns what a dotted path names, attributes of classes included."""
    names = path.split(".")
    for size in range(len(names), 0, -1):
        try:
            module = importlib.import_module(".".join(names[:size]))
        except ModuleNotFoundError as error:
            # A module of that name which lacks something else is another matter.
            assert error.name and path.startswith(error.name), error
            continue
        return functools.reduce(getattr, names[size:], module), module
    raise AssertionError(path)


@pytest.mark.parametrize("language", _PAGES)
def test_a_page_explains_every_idea_in_the_order_of_the_table(language: str) -> None:
    page = _page(language)
    assert [*page][1:] == [*IDEAS]
    for anchor, text in page.items():
        assert not anchor or re.match(r"###? \S", text), f"{anchor} has no heading"
    # Each is reached from the list at the top.
    assert set(re.findall(r"\]\(#([\w-]+)\)", page[""])) == set(IDEAS)
    for section in SECTIONS:
        assert IDEAS[section].place == section


@pytest.mark.parametrize("language", _PAGES)
@pytest.mark.parametrize("anchor", IDEAS)
def test_an_idea_names_its_function_and_its_view(language: str, anchor: str) -> None:
    idea, text = IDEAS[anchor], _page(language)[anchor]
    path = f"gpt2_jax.{idea.function}"
    function, module = _resolve(path)
    assert callable(function)
    (link,) = re.findall(rf"\[`{re.escape(path)}`\]\((\S+)\)", text)
    assert (_ROOT / "docs" / link).resolve() == Path(module.__file__ or "").resolve()
    if idea.address is None:
        assert idea.place in PANELS
        assert re.search(rf"^\*Function\*.* panel `{idea.place}`|面板 `{idea.place}`", text, re.M)
        return
    assert idea.place in SECTIONS
    assert idea.address in {view.address for view in VIEWS}
    assert re.search(rf"\* `{idea.place}`: `{re.escape(idea.address)}`$", text, re.M)


@pytest.mark.parametrize("anchor", [name for name, idea in IDEAS.items() if idea.address])
def test_an_idea_has_a_line_of_python_with_its_address(anchor: str) -> None:
    parts = re.split(r"\{\w+\}", IDEAS[anchor].address or "")
    pattern = r"(?:\d+|\{\w+\})".join(map(re.escape, parts))
    (code,) = _CODE.findall(_page("en")[anchor])
    assert re.search(rf'\[f?"{pattern}"\]', code), pattern


def test_the_explorer_has_every_section_and_panel() -> None:
    for folder, names in (("sections", SECTIONS), ("panels", PANELS)):
        index = (_STATIC / folder / "index.js").read_text(encoding="utf-8")
        for name in names:
            assert (_STATIC / folder / f"{name}.js").is_file()
        loaded = re.findall(r'(\w+): \(\) => import\("./(\w+)\.js"\)', index)
        assert all(name == file for name, file in loaded)
        listed = tuple(name for name, _ in loaded)
        assert listed == names if folder == "sections" else {*listed} == {*names}


@pytest.mark.parametrize("name", [*SECTIONS, *PANELS])
def test_the_explorer_has_every_section_and_panel_in_both_languages(name: str) -> None:
    for language in _PAGES:
        texts = json.loads((_STATIC / "i18n" / f"{language}.json").read_text(encoding="utf-8"))
        assert texts[f"{name}.title"].strip()
        text = texts[f"{name}.text"] if name in SECTIONS else "中 a"
        assert re.search("[\u4e00-\u9fff]" if language == "zh" else "[a-z]", text)


def test_the_page_on_the_explorer_names_every_section_and_panel() -> None:
    page = (_ROOT / "docs" / "explorer.md").read_text(encoding="utf-8")
    linked = re.findall(r"^\| \[(\w+)\]\(how_gpt2_works\.md#(\w+)\) \|", page, re.MULTILINE)
    assert linked == [(section, section) for section in SECTIONS]
    (panels,) = re.findall(r"^## The panels\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    assert sorted(re.findall(r"^- \*\*(\w+)\*\*: ", panels, re.MULTILINE)) == sorted(PANELS)


@pytest.mark.parametrize("anchor", ["", *IDEAS])
def test_both_languages_have_the_same_code_and_figures(anchor: str) -> None:
    english, chinese = (_page(language)[anchor] for language in _PAGES)
    assert _CODE.findall(english) == _CODE.findall(chinese)
    assert _FIGURE.findall(english) == _FIGURE.findall(chinese)
    assert sorted(_NUMBER.findall(english)) == sorted(_NUMBER.findall(chinese))


@pytest.mark.parametrize("anchor", IDEAS)
def test_an_explanation_is_short(anchor: str) -> None:
    assert 60 <= len(_prose("en", anchor).split()) <= 150
    assert 80 <= len(re.findall(r"[\u4e00-\u9fff]", _prose("zh", anchor))) <= 220


@pytest.fixture(scope="module")
def quickstart() -> gpt2_jax.LanguageModel:
    """A model of the quickstart's sizes, with noise as its parameters."""
    values = config_lib.to_dict(config_lib.load_config(_ROOT / "configs" / "quickstart.py"))
    values["model"]["vocab_size"] = 257
    config = config_lib.from_dict(values)

    def smaller(path: Any, leaf: jax.Array) -> jax.Array:
        return leaf if path[-1].key == "scale" else leaf / 4  # no share of attention is 0

    params = jax.tree_util.tree_map_with_path(smaller, noisy_params(config))
    return gpt2_jax.LanguageModel(Model(config, params, ByteTokenizer(), 0, Path(_RUN)))


@pytest.fixture
def loaded(
    quickstart: gpt2_jax.LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Has `gpt2_jax.load` return that model by the name that the pages give it."""
    (tmp_path / _RUN).mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    names = {str(path): quickstart for path in (_RUN, tmp_path / _RUN)}
    monkeypatch.setattr(gpt2_jax, "load", lambda path, **_: names[str(path)])
    whole = quickstart.inspect
    kept = functools.cache(whole)  # the same text is run once

    def inspect(text: Any, *more: Any) -> Any:
        return whole(text, *more) if more or not isinstance(text, str) else kept(text)

    monkeypatch.setattr(quickstart, "inspect", inspect)


def _needs(statement: ast.stmt, names: set[str]) -> bool:
    """Returns whether a statement uses a model, and if so adds the names that it assigns."""
    used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    if names.isdisjoint(used) and "gpt2_jax.load" not in ast.unparse(statement):
        return False
    if isinstance(statement, ast.Assign):
        names |= {node.id for node in ast.walk(statement.targets[0]) if isinstance(node, ast.Name)}
    return True


def _run(code: str, names: dict[str, Any], *, with_model: bool = True) -> int:
    """Runs code, compares values with the comments behind them, and returns how many these are."""
    lines, checked = [*code.splitlines(), ""], 0
    of_model = {"model"}
    for statement in ast.parse(code).body:
        source = ast.unparse(statement)
        if not with_model and _needs(statement, of_model):
            continue
        if not isinstance(statement, ast.Expr):
            exec(source, names)
            continue
        value = eval(source, names)
        end = statement.end_lineno or 0
        behind = lines[end - 1][statement.end_col_offset or 0 :].strip() or lines[end]
        assert behind.startswith("# ") or "print" in source, f"{source} shows nothing"
        if behind.startswith("# ") and "print" not in source:
            assert value == ast.literal_eval(behind[2:]), source
            checked += 1
    return checked


def _run_page(*, with_model: bool) -> int:
    """Runs every explanation's code, and returns how many values were compared."""
    (preamble,) = _CODE.findall(_page("en")[""])
    names: dict[str, Any] = {}
    _run(preamble, names, with_model=with_model)
    # A reader may begin anywhere: only what stands at the top is known.
    codes = [_CODE.findall(_page("en")[anchor])[0] for anchor in IDEAS]
    return sum(_run(code, dict(names), with_model=with_model) for code in codes)


def test_the_arithmetic_of_the_explanations_is_right() -> None:
    assert _run_page(with_model=False) > 15


@pytest.mark.slow
def test_the_python_of_the_explanations_gives_what_it_says(loaded: None) -> None:
    assert _run_page(with_model=True) > len(IDEAS)


def _run_notebook() -> None:
    """Runs the cells of the notebook in one process, and checks what they print."""
    text = (_ROOT / "docs" / "how_gpt2_works.ipynb").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for number, cell in enumerate(json.loads(text)["cells"]):
        if cell["cell_type"] != "code":
            continue
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        (stored,) = cell["outputs"]
        assert shown.getvalue() == "".join(stored["text"]), number


@pytest.mark.slow
def test_the_notebook_gives_what_it_says(loaded: None) -> None:
    _run_notebook()


@pytest.mark.slow
def test_the_notebook_gives_the_same_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    _run_notebook()


def test_the_notebook_goes_through_the_sections() -> None:
    text = (_ROOT / "docs" / "how_gpt2_works.ipynb").read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    prose = "".join(
        line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"]
    )
    linked = re.findall(r"\]\(how_gpt2_works\.md#([\w-]+)\)", prose)
    assert [name for name in linked if name in SECTIONS] == [*SECTIONS]
    assert set(linked) <= set(IDEAS)


@pytest.mark.slow
def test_the_python_of_the_explorer_runs(loaded: None) -> None:
    names: dict[str, Any] = {}
    for code in _CODE.findall((_ROOT / "docs" / "explorer.md").read_text(encoding="utf-8")):
        exec(code, names)
    assert names["seen"]["pattern/1/2"].shape == (14, 14)
