from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_jax.cli import main as commands
from gpt2_jax.cli.main import main
from gpt2_jax.cli.verb import Parser, parse
from gpt2_jax.config import from_dict, knobs
from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import (
    is_remote,
    normal_folder,
    remove_tree,
    replaceable_folder,
    resolve_path,
)


def test_a_folder_on_a_disk_is_an_ordinary_path(tmp_path):
    path = resolve_path(tmp_path / "run")
    assert type(path) is type(Path()) and not is_remote(path)
    (path / "a" / "b").mkdir(parents=True)
    remove_tree(path)
    remove_tree(path)
    assert not path.exists()


def test_a_bucket_without_its_extra_is_refused_at_once(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    config = tmp_path / "config.py"
    config.write_text("from gpt2_jax.config import default\nget_config = default\n")
    assert main(["train", "--config", str(config), "--workdir", "gs://bucket/run"]) == 2
    errors = capfd.readouterr().err
    assert "--workdir gs://bucket/run" in errors and "gpt2_jax[gcs]" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("name", ["s3://bucket/run", "https://host/run"])
def test_other_schemes_are_refused_by_name(name):
    with pytest.raises(UserError, match=f"^--workdir {name} must be"):
        resolve_path(name, "--workdir")


def test_a_path_on_a_disk_loads_no_library_for_buckets():
    code = """
import sys
from gpt2_jax.files.paths import remove_tree, resolve_path
remove_tree(resolve_path("/no/such/folder"))
print(sorted({"etils", "fsspec", "gcsfs", "numpy", "jax"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("./a//b/", "a/b"),
        ("~/a/", "/home/me/a"),
        ("gs://bucket//a/../b/", "gs://bucket/b"),
        ("gs://", "gs://"),
    ],
)
def test_names_of_folders_are_normal_with_any_scheme(monkeypatch, name, normal):
    monkeypatch.setenv("HOME", "/home/me")
    assert normal_folder(name) == normal


def path_actions(verb):
    """Returns a verb's flags that take a path, each with the other words that the verb needs."""
    parser = Parser()
    verb.add_arguments(parser)
    needed = {
        each: f"{each.option_strings[0]}={(each.choices or 'x')[0]}"
        for each in parser._actions
        if each.required
    }
    return [
        (action, [word for each, word in needed.items() if each is not action])
        for action in parser.path_actions()
    ]


@pytest.mark.parametrize("name", commands.VERBS)
def test_every_flag_with_a_path_expands_a_home_folder(monkeypatch, name):
    monkeypatch.setenv("HOME", "/home/me")
    verb = importlib.import_module(f"gpt2_jax.cli.{name}")
    actions = path_actions(verb)
    assert actions
    for action, words in actions:
        args = parse(name, verb, [*words, f"{action.option_strings[0]}=~/x"])
        assert getattr(args, action.dest) in ("/home/me/x", ["/home/me/x"])


def test_every_knob_with_a_path_expands_a_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    paths = [knob.key for knob in knobs() if knob.is_path]
    assert paths == ["data.path", "train.init_from", "eval.data"]
    for section, _, name in (key.partition(".") for key in paths):
        config = from_dict({section: {name: "~/x"}})
        assert getattr(getattr(config, section), name) == "/home/me/x"
    assert from_dict({"data": {"mixture": "~/x=1,y~=2"}}).data.weights == {"/home/me/x": 1, "y~": 2}
    assert str(resolve_path("~/x")) == "/home/me/x" and str(resolve_path("x/~")) == "x/~"


@pytest.mark.parametrize("name", commands.VERBS)
def test_the_home_of_a_user_who_does_not_exist_is_refused(name):
    verb = importlib.import_module(f"gpt2_jax.cli.{name}")
    for action, words in path_actions(verb):
        flag = action.option_strings[0]
        with pytest.raises(UserError, match=f"^{flag} ~nosuchuser/x: there is no user nosuchuser"):
            parse(name, verb, [*words, f"{flag}=~nosuchuser/x"])


def test_a_knob_with_the_home_of_a_user_who_does_not_exist_is_refused():
    for knob in (knob for knob in knobs() if knob.is_path):
        section, _, name = knob.key.partition(".")
        with pytest.raises(UserError, match=f"^{knob.key} ~nosuchuser: there is no user"):
            from_dict({section: {name: "~nosuchuser"}})
    with pytest.raises(UserError, match=r"^data.mixture ~nosuchuser/x: there is no user"):
        from_dict({"data": {"mixture": "~nosuchuser/x=1,y=2"}})


@pytest.mark.parametrize("name", ["gs://", "gs:///run"])
def test_a_bucket_without_a_name_is_refused(name):
    with pytest.raises(UserError, match=f"^--workdir {name} names no bucket"):
        resolve_path(name, "--workdir")


def test_a_folder_that_cannot_be_replaced_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("target", "link")
    assert replaceable_folder(Path("link"), "--out") == tmp_path.resolve() / "target"
    os.symlink("loop", "loop")
    for name, problem in {
        "loop": "is a link that leads back to itself",
        ".": "is the current folder",
        "/": "is where a disk is mounted",
    }.items():
        with pytest.raises(UserError, match=f"^--out {re.escape(name)} {problem}"):
            replaceable_folder(Path(name), "--out")
