"""Tests that folders and patterns take the same files: links, hidden names, circles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.inputs import read_inputs
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


@pytest.mark.parametrize(
    ("target", "problem"),
    [("nowhere", "is a link that leads nowhere"), ("lost", "is a link that leads back to itself")],
)
@pytest.mark.parametrize("suffix", [".txt", ""])
def test_a_link_that_cannot_be_followed_is_named(place, capsys, target, problem, suffix):
    target += suffix if target == "lost" else ""
    Path(f"top/deep/lost{suffix}").symlink_to(target)
    with pytest.raises(UserError, match=f"top/deep/lost{suffix} {problem}"):
        folder_files(Path("top"), (".txt",))
    patterns = ["top/deep/l*", f"top/d*/lost{suffix}"]
    patterns += ["top/**/*.txt", "**"] if suffix else ["top/deep/lo*/*.txt"]
    for pattern in patterns:
        with pytest.raises(UserError, match=f"top/deep/lost{suffix} {problem}"):
            matching_files(pattern)
    with pytest.raises(UserError, match=f"--input top/deep/lost{suffix} {problem}"):
        read_inputs([f"top/deep/lost{suffix}"])
    assert capsys.readouterr().err == ""
    if not suffix:  # it may have stood for a folder of texts
        assert len(matching_files("top/**/*.txt")) == len(TAKEN)
        note = "note: --input top/**/*.txt does not match 1 link that leads nowhere, instead of "
        assert capsys.readouterr().err.startswith(note)


def test_a_pipe_is_refused_without_waiting_for_its_content(place):
    os.mkfifo("top/pipe.txt")
    for name in ("top", "top/**/*.txt", "top/pipe.txt"):
        with pytest.raises(UserError, match=r"top/pipe\.txt is not a regular file"):
            read_inputs([name])
    Path("top/pipe.txt").unlink()
    reader, writer = os.pipe()  # as a shell's <(...) names it
    try:
        with pytest.raises(UserError, match=rf"--input /dev/fd/{reader} is not a regular file"):
            read_inputs([f"/dev/fd/{reader}"])
    finally:
        os.close(reader)
        os.close(writer)


def test_the_command_counts_the_files_and_takes_each_once(place, capsys):
    for number, inputs in enumerate((["top"], ["top/**/*.txt"], ["top", "top/**/*.txt", "h.txt"])):
        words = ["prepare", "--tokenizer", "byte", "--workers", "1", "--out", f"out{number}"]
        assert main([*words, "--input", *inputs]) == 0
        assert f"prepared out{number} from 6 files: " in capsys.readouterr().out
    contents = {Path(f"out{number}/train_000000.bin").read_bytes() for number in range(3)}
    assert len(contents) == 1
