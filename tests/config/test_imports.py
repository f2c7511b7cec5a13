"""A config file imports the files beside it, from anywhere, and what it prints is no output."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from gpt2_jax.config import load_config
from gpt2_jax.errors import UserError
from tests.config.lines import HEADER

_BASE = HEADER + "    c.model.num_layers = {layers}\n    return c\n"
_DERIVED = "{imports}\n\ndef get_config():\n    c = {call}\n    c.train.seed = 5\n    return c\n"


def _write(folder: Path, imports: str, call: str = "get_base()", layers: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base_config.py").write_text(_BASE.format(layers=layers))
    (folder / "derived.py").write_text(_DERIVED.format(imports=imports, call=call))
    return folder / "derived.py"


_IMPORTS = {
    "beside": ("from base_config import get_config as get_base", "get_base()"),
    "module": ("import base_config", "base_config.get_config()"),
    "relative": ("from .base_config import get_config as get_base", "get_base()"),
    "package": ("from sweep.base_config import get_config as get_base", "get_base()"),
    "late": ("", "__import__('base_config').get_config()"),
}


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("how", _IMPORTS)
def test_a_config_imports_another_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, init: bool
) -> None:
    file = _write(tmp_path / "sweep", *_IMPORTS[how])
    if init:
        (file.parent / "__init__.py").write_text("")
    path, modules = list(sys.path), {*sys.modules}
    for folder, name in (
        (tmp_path, "sweep/derived.py"),
        (file.parent, "derived.py"),
        (Path("/"), file),
    ):
        monkeypatch.chdir(folder)
        config = load_config(name)
        assert (config.model.num_layers, config.train.seed) == (3, 5)
        assert sys.path == path
        assert not {name for name in {*sys.modules} - modules if "base_config" in name}
    assert not [*tmp_path.rglob("__pycache__")]


def test_files_of_one_name_in_two_folders_are_two_files(tmp_path: Path) -> None:
    imports = "from base_config import get_config as get_base"
    one = _write(tmp_path / "one", imports, layers=3)
    two = _write(tmp_path / "two", imports, layers=4)
    assert [load_config(file).model.num_layers for file in (one, two, one)] == [3, 4, 3]


@pytest.mark.parametrize(
    ("text", "line"),
    [("1 / 0", 1), ("x = 1\nx = = 2", 2), (HEADER + "    c.model.num_layer = 1\n", 5)],
)
def test_a_mistake_in_a_file_beside_it_is_named_with_its_line(
    tmp_path: Path, text: str, line: int
) -> None:
    file = _write(tmp_path / "sweep", "from base_config import get_config as get_base")
    (file.parent / "base_config.py").write_text(text)
    path = list(sys.path)
    with pytest.raises(UserError, match=rf"sweep/base_config\.py, line {line}: "):
        load_config(file)
    assert sys.path == path


def test_what_a_config_prints_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "loud.py"
    path.write_text("print('loaded')\n" + HEADER + "    print('called')\n    return c\n")
    load_config(path)
    assert capsys.readouterr() == ("", "loaded\ncalled\n")


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("how", ["relative", "package", "beside"])
def test_another_folder_or_module_of_the_same_name_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, init: bool
) -> None:
    mine = _write(tmp_path / "mine" / "sweep", *_IMPORTS[how], layers=3)
    others = _write(tmp_path / "others" / "sweep", *_IMPORTS[how], layers=4)
    for file in (mine, others) if init else ():
        (file.parent / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path / "others")
    monkeypatch.syspath_prepend(str(tmp_path / "others"))
    assert load_config(mine).model.num_layers == 3
    loaded = {name: types.ModuleType(name) for name in ("sweep", "sweep.base_config")}
    loaded["base_config"] = types.ModuleType("base_config")
    for name, module in loaded.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert load_config(mine).model.num_layers == 3
    assert load_config(others).model.num_layers == 4
    assert all(sys.modules[name] is module for name, module in loaded.items())


@pytest.mark.parametrize("name", ["json", "numpy", "gpt2_jax"])
def test_a_folder_named_like_a_library_hides_none(tmp_path: Path, name: str) -> None:
    imports = "import json, numpy\nfrom .base_config import get_config as get_base"
    file = _write(tmp_path / name, imports, "get_base() if json.loads('1') + numpy.int32(1) else 0")
    assert load_config(file).model.num_layers == 3
    assert name in sys.modules and not hasattr(sys.modules[name], "base_config")
