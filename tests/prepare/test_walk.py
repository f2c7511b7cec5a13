"""Tests that folders and patterns take the same files: links, hidden names, circles."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.walk import folder_files, matching_files


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder `top` with links to what is beside it, hidden copies, and links in circles."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "top/a.txt",
        "top/deep/er/b.txt",
        "top/[odd]/c.txt",
        "top/.hidden.txt",
        "top/.git/d.txt",
        "top/deep/.e.txt",
        "beside/f.txt",
        "beside/sub/g.txt",
        "h.txt",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("top/linked").symlink_to("../beside")
    Path("top/link.txt").symlink_to("../h.txt")
    for number in range(3):
        Path(f"top/deep/circle{number}").symlink_to("..")
    Path("beside/sub/back").symlink_to("../../top/deep")
    return tmp_path


TAKEN = [
    "top/[odd]/c.txt",
    "top/a.txt",
    "top/deep/er/b.txt",
    "top/link.txt",
    "top/linked/f.txt",
    "top/linked/sub/g.txt",
]


def test_a_folder_and_its_pattern_take_the_same_files(place):
    assert [str(path) for path in folder_files(Path("top"), (".txt",))] == TAKEN
    for pattern in ("top/**/*.txt", "top/**", "t?p/**/*.txt", f"{place}/top/**/*.txt"):
        names = [str(path).removeprefix(f"{place}/") for path in matching_files(pattern)]
        assert names == TAKEN, pattern
    assert [str(path) for path in folder_files(place / "top", (".txt",))] == [
        f"{place}/{name}" for name in TAKEN
    ]


def test_patterns_say_what_is_between_folders(place):
    for pattern, names in {
        "**/deep/**/*.txt": ["top/deep/er/b.txt"],
        "top/*/*.txt": ["top/[odd]/c.txt", "top/linked/f.txt"],
        "top/.hidden.txt": ["top/.hidden.txt"],
        "top/.*/*.txt": ["top/.git/d.txt"],
        "top/**/.*.txt": ["top/.hidden.txt", "top/deep/.e.txt"],
        "**/h.txt": ["h.txt"],
        "nothing/**/*.txt": [],
    }.items():
        found = [str(path) for path in matching_files(pattern) if "circle" not in str(path)]
        assert sorted(set(found)) == names, pattern


def test_what_cannot_be_followed_is_named(place):
    Path("top/deep/lost.txt").symlink_to("nowhere")
    Path("top/deep/lost").symlink_to("nowhere")
    for find in (
        lambda: folder_files(Path("top"), (".txt",)),
        lambda: matching_files("top/**/*.txt"),
    ):
        with pytest.raises(UserError, match=r"top/deep/lost\.txt is a link that leads nowhere"):
            find()


def test_the_command_counts_the_files_and_takes_each_once(place, capsys):
    for number, inputs in enumerate((["top"], ["top/**/*.txt"], ["top", "top/**/*.txt", "h.txt"])):
        words = ["prepare", "--tokenizer", "byte", "--workers", "1", "--out", f"out{number}"]
        assert main([*words, "--input", *inputs]) == 0
        assert f"prepared out{number} from 6 files: " in capsys.readouterr().out
    contents = {Path(f"out{number}/train_000000.bin").read_bytes() for number in range(3)}
    assert len(contents) == 1
