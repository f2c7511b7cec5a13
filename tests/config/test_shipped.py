"""The package's configs are found by name, in the repository and in an installed package."""

from __future__ import annotations

import runpy
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.config import load_config, shipped
from gpt2_jax.errors import UserError
from tests.config.lines import line_of

_ROOT = Path(__file__).parents[2]
_NAMES = sorted(path.stem for path in (_ROOT / "configs").glob("*.py"))


def test_a_name_is_the_config_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(shipped.shipped_configs()) == _NAMES and "gpt2_small" in _NAMES
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # as a folder of data may be called
    for name in _NAMES:
        assert load_config(name) == load_config(_ROOT / "configs" / f"{name}.py")
    with pytest.raises(UserError, match=r"quickstart\.py takes no argument, not 'a=1'"):
        load_config("quickstart:a=1")


def test_an_unknown_name_gets_the_names_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        load_config("mine")
    names = ", ".join(_NAMES)  # all of which are needed, however many there are
    message = line_of(error, Path(names))
    assert "no config file mine: give its path" in message
    assert f"one of the package's configs: {names}" in message
    with pytest.raises(UserError, match="did you mean 'gpt2_small'"):
        load_config("gpt2_smal")
    with pytest.raises(UserError, match="has a config of this name: --config gpt2_small"):
        load_config("configs/gpt2_small.py")


def test_an_installed_package_has_the_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, Any] = {}
    monkeypatch.chdir(_ROOT)
    # Python 3.12 and later have no setuptools of their own.
    setuptools = types.ModuleType("setuptools")
    folders = sorted(path.parent for path in (_ROOT / "gpt2_jax").rglob("__init__.py"))
    names = [folder.relative_to(_ROOT).as_posix().replace("/", ".") for folder in folders]
    vars(setuptools).update(setup=said.update, find_packages=lambda include: names)
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    runpy.run_path(str(_ROOT / "setup.py"))
    assert {"gpt2_jax", "gpt2_jax.config", "gpt2_jax.configs"} <= {*said["packages"]}
    # What these two settings tell setuptools to install, without the repository around it.
    for package in said["packages"]:
        source = _ROOT / said["package_dir"].get(package, package.replace(".", "/"))
        data = said["package_data"].get(package, ["*.py"])
        assert [*source.glob(data[0])], package
    shutil.copytree(
        _ROOT / said["package_dir"]["gpt2_jax.configs"], tmp_path / "gpt2_jax" / "configs"
    )
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "gpt2_jax")
    assert list(shipped.shipped_configs()) == _NAMES
    assert load_config("gpt2_small").model.num_layers == 12
