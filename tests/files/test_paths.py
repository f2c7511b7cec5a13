from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.errors import UserError
from gpt2_jax.files.paths import is_remote, remove_tree, resolve_path


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
