"""Compiled programs outlive their process, and no fault of their folder ends a run."""

from __future__ import annotations

import os
import stat
import time

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache as public_cache

from gpt2_jax.cli.main import main
from gpt2_jax.errors import UserError
from gpt2_jax.parallel import compilation_cache
from gpt2_jax.parallel.compilation_cache import (
    VARIABLE,
    ProgramStore,
    describe,
    keep_compiled_programs,
    programs_folder,
)

_OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_enable_xla_caches",
    "jax_enable_compilation_cache",
)


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """A process in which the user has set nothing; JAX's options are afterwards what they were."""
    before = {name: jax.config.values[name] for name in _OPTIONS}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax_cache = compilation_cache.jax_cache
    monkeypatch.setattr(jax_cache, "get_file_cache", jax_cache.get_file_cache)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    public_cache.reset_cache()
    yield monkeypatch
    for name, value in before.items():
        jax.config.update(name, value)
    public_cache.reset_cache()


def compile_one():
    """Compiles a function that is new to this process; returns the events of the cache."""
    events = []

    def listen(event, **_):
        events.append(event.rpartition("/")[2])

    jax.monitoring.register_event_listener(listen)
    try:
        jax.jit(lambda x: jnp.sin(x) * 3).lower(jnp.ones(7)).compile()
    finally:
        jax.monitoring.unregister_event_listener(listen)
    return [event for event in events if event in ("cache_hits", "cache_misses")]


def test_a_program_is_compiled_once_and_then_loaded(unset, tmp_path):
    unset.setattr(compilation_cache, "_MIN_SECONDS", 0.0)
    keep_compiled_programs()
    keep_compiled_programs()  # again changes nothing
    folder = programs_folder()
    assert folder is not None and folder.parent == tmp_path / "gpt2_jax" / "compiled"
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)
    compile_one()  # what `ones` compiles, too
    entries = sorted(folder.iterdir())
    assert entries and all(entry.suffix == ".program" for entry in entries)
    assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0
    assert compile_one() == ["cache_hits"]
    for entry in entries:  # as a damaged disk leaves them: compiled and written anew
        entry.write_bytes(entry.read_bytes()[:-1])
    assert compile_one() == ["cache_misses"]
    assert compile_one() == ["cache_hits"]


@pytest.mark.parametrize("how", ["environment", "option", "off", "JAX's off"])
def test_what_the_user_has_set_is_left_alone(unset, tmp_path, how):
    theirs = None
    if how == "environment":
        unset.setenv("JAX_COMPILATION_CACHE_DIR", "")
    elif how == "option":
        theirs = str(tmp_path / "theirs")
        jax.config.update("jax_compilation_cache_dir", theirs)
    elif how == "off":
        unset.setenv(VARIABLE, "off")
    else:
        jax.config.update("jax_enable_compilation_cache", False)
    keep_compiled_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == theirs
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 1.0
    assert describe()["on"] == (how == "option") and describe()["folder"] == theirs


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--config", "quickstart", "--dry_run"],
        ["sample", "--model", "no/model"],
        ["eval", "--model", "no/model", "--text", __file__],
    ],
    ids=lambda words: words[0],
)
def test_the_flag_decides_before_the_environment(unset, tmp_path, words, capsys):
    unset.setenv(VARIABLE, str(tmp_path / "of the variable"))
    main([*words, "--compilation_cache", str(tmp_path / "mine")])
    folder = jax.config.values["jax_compilation_cache_dir"]
    assert os.path.dirname(folder) == str(tmp_path / "mine")
    keep_compiled_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == folder
    main([*words, "--compilation_cache=off"])
    assert describe()["detail"] == "turned off by JAX's own settings"
    capsys.readouterr()
    assert main([*words, "--compilation_cache=s3://b/c"]) == 2
    assert "error: --compilation_cache s3://b/c must be a folder" in capsys.readouterr().err


def test_a_chosen_least_compile_time_stays(unset):
    unset.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    keep_compiled_programs()
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 1.0


def test_a_scheme_that_cannot_be_reached_is_refused(unset):
    unset.setenv(VARIABLE, "s3://bucket/programs")
    with pytest.raises(UserError, match=rf"{VARIABLE} s3://bucket/programs must be a folder on a"):
        keep_compiled_programs()


def test_other_processors_and_versions_have_other_folders(unset, monkeypatch, tmp_path):
    folder = programs_folder()
    version = compilation_cache.importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: version(name) + ".dev1")
    newer = programs_folder()
    monkeypatch.setattr("importlib.metadata.version", version)
    cpu = tmp_path / "cpuinfo"
    monkeypatch.setattr(compilation_cache, "_CPU_INFO", cpu)
    names = []
    for megahertz in "12":  # which does not count
        cpu.write_text(f"model name\t: Other\nflags\t\t: fpu avx512f\ncpu MHz\t\t: {megahertz}\n")
        names.append(programs_folder())
    assert names[0] == names[1]
    assert len({folder, newer, names[0]}) == 3


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


def test_doctor_counts_the_programs(unset):
    folder = programs_folder()
    assert folder is not None
    assert (describe()["entries"], describe()["bytes"]) == (0, 0)
    ProgramStore(folder).put("p", bytes(100))
    report = describe()
    assert (report["entries"], report["bytes"]) == (1, 132)
    assert report["detail"] == f"{folder}: 1 programs, 0.0 MiB of at most 1,024"
