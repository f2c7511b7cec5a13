"""Tests the documentation site's hook and menu; `make docs`, which `make check` runs, builds it."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gpt2_jax import config
from gpt2_jax.cli.main import VERBS

_ROOT = Path(__file__).parents[1]
_SETTINGS = (_ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    sys.path.insert(0, str(_ROOT / "docs" / "site"))
    try:
        return importlib.import_module("repository")
    finally:
        sys.path.pop(0)


def test_the_menu_lists_every_page(hook: ModuleType) -> None:
    (menu,) = re.findall(r"^nav:\n((?: .*\n)+)", _SETTINGS, re.MULTILINE)
    listed = re.findall(r"(\S+\.md)$", menu, re.MULTILINE)
    pages = [path.relative_to(_ROOT).as_posix() for path in _ROOT.glob("docs/**/*.md")]
    pages += [f"{path.relative_to(_ROOT).as_posix()}.md" for path in _ROOT.glob("docs/*.ipynb")]
    pages += [path if path.endswith(".md") else f"{path}.md" for path in hook.STARTS]
    assert sorted(listed) == sorted(pages)


def test_the_site_loads_nothing_from_elsewhere() -> None:
    assert "font: false" in _SETTINGS
    # The theme would take this one from a server if none had its name.
    (script,) = re.findall(r"polyfills: \[(\S*iframe-worker\S*)\]", _SETTINGS)
    for path in [script, *re.findall(r"extra_css: \[(\S+)\]", _SETTINGS)]:
        assert "//" not in re.sub(r"/\*.*?\*/", "", (_ROOT / "docs" / path).read_text(), flags=re.S)


def test_every_picture_is_shown_and_small() -> None:
    pages = [*_ROOT.glob("docs/*.md"), _ROOT / "README.md"]
    shown = {name for page in pages for name in re.findall(r"images/([\w.]+)\)", page.read_text())}
    pictures = {path.name: path.stat().st_size for path in _ROOT.glob("docs/images/*")}
    assert shown == set(pictures)
    assert pictures.pop("explorer.png") < 250_000 and sum(pictures.values()) < 400_000


def test_links_lead_to_the_pages_that_show_files(hook: ModuleType) -> None:
    pages = {"gpt2_jax/model/gpt2.py.md", "docs/data.md", "docs/how_gpt2_works.ipynb.md"}

    def moved(text: str) -> str:
        return hook.linked_to_pages(text, "docs/how_gpt2_works.md", pages)

    file = "../gpt2_jax/model/gpt2.py"
    name = "`gpt2_jax.model.gpt2.MLP`"
    assert moved(f"[{name}]({file})") == f"[{name}]({file}.md#gpt2_jax.model.gpt2.MLP)"
    assert moved(f"[the file]({file})") == f"[the file]({file}.md)"
    assert moved("[a](how_gpt2_works.ipynb)") == "[a](how_gpt2_works.ipynb.md)"
    for kept in ("[a](data.md#x)", "[a](#x)", "[a](https://x.org/data.md)", "[a](missing.py)"):
        assert moved(kept) == kept
    code = f"```md\n[the file]({file})\n```"
    assert moved(f"{code}\n[the file]({file})") == f"{code}\n[the file]({file}.md)"
    linked = list(hook.linked(f"{code}\n[a](data.md#x) [a](#x) [a](missing.py)", "docs/a.md"))
    assert linked == ["docs/data.md"]


def test_a_file_is_shown_as_a_page(hook: ModuleType) -> None:
    assert hook.shown("gpt2_jax/model/gpt2.py").startswith("::: gpt2_jax.model.gpt2\n")
    assert hook.shown("gpt2_jax/config/__init__.py").startswith("::: gpt2_jax.config\n")
    source = (_ROOT / "configs" / "quickstart.py").read_text(encoding="utf-8")
    assert source.rstrip() in hook.shown("configs/quickstart.py")
    assert "- [quickstart.py](configs/quickstart.py): A small byte-level" in hook.shown("configs")
    notebook = hook.shown("docs/how_gpt2_works.ipynb")
    assert notebook.startswith("# ") and "2 layers of width 192" in notebook


def test_generated_parts_have_every_knob_verb_and_record(hook: ModuleType) -> None:
    def page(name: str) -> str:
        text = (_ROOT / "docs" / name).read_text(encoding="utf-8")
        return hook.expanded(text, _ROOT)

    knobs = page("reference/knobs.md")
    for knob in config.knobs():
        assert f"| `{knob.key}`<br>" in knobs
    assert "`learned`, `rotary`" in knobs
    commands = page("reference/commands.md")
    for verb in VERBS:
        assert f"## `{verb}`" in commands and f"usage: gpt2-jax {verb} " in commands
    records = page("records.md")
    for path in (_ROOT / "experiments" / "records").glob("*/README.md"):
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        assert f"## [{title}](../experiments/records/{path.parent.name}/README.md)\n\n" in records
    assert "<!-- generated" not in knobs + commands + records
