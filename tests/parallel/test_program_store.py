"""Entries are read whole or not at all, and no fault of their folder ends a run."""

from __future__ import annotations

import os
import time

from gpt2_jax.parallel import program_store
from gpt2_jax.parallel.program_store import VARIABLE, ProgramStore


def test_the_entries_that_were_not_read_for_longest_make_room(tmp_path):
    old, new = tmp_path / ("a" * 16), tmp_path / ("b" * 16)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "mine.program").write_bytes(bytes(900))  # not ours
    other, store = ProgramStore(old, 1000), ProgramStore(new, 1000)
    other.put("other", bytes(300))
    for key in "pqr":
        store.put(key, bytes(150))
    for age, path in enumerate([new / "p.program", old / "other.program", new / "q.program"]):
        os.utime(path, (time.time() - 1000 + age,) * 2)
    assert store.get("p") == bytes(150)  # now the last to be removed
    (left := new / "s.program.host-1-0.tmp").write_bytes(b"left by a process that was killed")
    os.utime(left, (time.time() - 10**6,) * 2)
    later = ProgramStore(new, 1000)
    later.put("s", bytes(200))
    assert sorted(path.name for path in new.iterdir()) == ["p.program", "r.program", "s.program"]
    assert list(old.iterdir()) == [] and (tmp_path / "texts" / "mine.program").exists()
    later.put("larger than all", bytes(2000))
    assert later.get("larger than all") is None


def test_a_folder_that_cannot_be_written_causes_one_warning(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    store = ProgramStore(tmp_path / "file" / ("a" * 16))
    for key in "pq":
        assert store.get(key) is None
        store.put(key, b"entry")
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and f"set {VARIABLE} to another folder, or to off" in errors


def test_a_full_disk_causes_one_warning_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    store = ProgramStore(tmp_path / ("a" * 16))
    monkeypatch.setattr(os, "fsync", full)
    for key in "pq":
        store.put(key, b"entry")
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert list((tmp_path / ("a" * 16)).iterdir()) == []


def test_an_entry_in_the_place_of_another_is_not_used(tmp_path):
    store, other = ProgramStore(tmp_path / ("a" * 16)), ProgramStore(tmp_path / ("b" * 16))
    for key in "pq":
        store.put(key, f"entry {key}".encode())
    file, place = (tmp_path / ("a" * 16) / f"{key}.program" for key in "pq")
    place.write_bytes(file.read_bytes())
    assert store.get("q") is None and store.get("p") == b"entry p"
    other.put("q", b"of another processor")
    (tmp_path / ("b" * 16) / "p.program").write_bytes(file.read_bytes())
    assert other.get("p") is None


def test_an_entry_that_cannot_be_read_does_not_stop_writes(tmp_path, capsys):
    store = ProgramStore(tmp_path / ("a" * 16))
    (tmp_path / ("a" * 16) / "p.program").mkdir(parents=True)
    assert store.get("p") is None and store.get("p") is None
    assert capsys.readouterr().err.count("cannot be read") == 1
    store.put("q", b"entry")
    assert store.get("q") == b"entry"


def test_a_bucket_that_does_not_answer_is_asked_once(tmp_path, capsys, monkeypatch):
    asked = []

    class Unreachable(type(tmp_path)):
        def read_bytes(self):
            asked.append(self)
            raise RuntimeError("no network")

    monkeypatch.setattr(program_store, "is_remote", lambda path: True)
    monkeypatch.setattr(program_store, "write_file", lambda path, content: asked.append(path))
    store = ProgramStore(Unreachable(tmp_path / ("a" * 16)))
    for key in "pq":
        assert store.get(key) is None
        store.put(key, b"entry")
    assert len(asked) == 1 and capsys.readouterr().err.count("no network") == 1


def test_processes_that_write_at_once_stay_near_the_limit(tmp_path):
    folder, limit = tmp_path / ("a" * 16), 16_000
    stores = [ProgramStore(folder, limit) for _ in range(4)]
    for number in range(320):
        stores[number % 4].put(f"{number}", bytes(68))
        size = sum(path.stat().st_size for path in folder.iterdir())
        assert size <= limit * (1 + 4 / 16)
