"""Compiled programs outlive their process, and no fault of their folder ends a run."""

from __future__ import annotations

import os
import stat

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache as public_cache

from gpt2_jax.cli import doctor
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
from tests import cache_options


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """A process in which the user has set nothing; JAX's options are afterwards what they were."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with cache_options.restored():
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
        public_cache.reset_cache()
        yield monkeypatch


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


@pytest.mark.parametrize("name", ["caf\udce9", "a\0b"])
def test_a_name_that_xla_cannot_take_is_refused(unset, tmp_path, name):
    with pytest.raises(UserError, match=rf"^{VARIABLE} '.* cannot be used: .*off"):
        unset.setattr(os, "environ", os.environ | {VARIABLE: str(tmp_path / name)})
        keep_compiled_programs()
    with pytest.raises(UserError, match=r"^--compilation_cache '.* cannot be used: .*off"):
        keep_compiled_programs(str(tmp_path / name))


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


def test_doctor_counts_the_programs(unset):
    folder = programs_folder()
    assert folder is not None
    assert (describe()["entries"], describe()["bytes"]) == (0, 0)
    ProgramStore(folder).put("p", bytes(100))
    for _ in range(2):  # the second time, this process uses the cache itself
        report = describe()
        assert (report["entries"], report["bytes"], report["problem"]) == (1, 132, None)
        assert report["detail"] == f"{folder}: 1 programs, 0.0 MiB of about 1,024 at most"
        keep_compiled_programs()


@pytest.mark.parametrize("place", ["file", "/proc/nowhere", "s3://bucket/f", "gs:///f", "theirs"])
def test_doctor_says_what_the_next_run_will_say(unset, tmp_path, place, capsys):
    (tmp_path / "file").write_text("no folder")
    if place == "theirs":
        unset.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file"))
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file"))
    else:
        unset.setenv(VARIABLE, str(tmp_path / place) if place == "file" else place)
    unset.setattr(doctor, "_vocabulary", dict)  # takes a second
    report = doctor.examine()
    found = report["fast_paths"]["compilation_cache"]
    assert not found["on"] and found["detail"] in report["problems"]
    assert "bf16" in report["fast_paths"]
    if "://" in place:
        with pytest.raises(UserError) as raised:
            keep_compiled_programs()
        assert found["detail"] == str(raised.value)
    elif place != "theirs":
        folder = programs_folder()
        assert folder is not None
        ProgramStore(folder).put("p", b"entry")
        said = capsys.readouterr().err
        assert said.partition("(")[0] == f"warning: {found['detail']}".partition("(")[0]


def test_doctor_does_not_judge_other_places_of_jax(unset):
    unset.setenv("JAX_COMPILATION_CACHE_DIR", "s3://bucket/folder")
    jax.config.update("jax_compilation_cache_dir", "s3://bucket/folder")
    report = describe()
    assert report["on"] and report["problem"] is None
    assert report["detail"] == "s3://bucket/folder, set by JAX_COMPILATION_CACHE_DIR"


@pytest.mark.parametrize("word", ["OFF", "Off", "0", "false", "None"])
def test_the_cache_is_turned_off_in_any_spelling(unset, word):
    unset.setenv(VARIABLE, word)
    assert programs_folder() is None
    keep_compiled_programs(word)
    assert not jax.config.values["jax_enable_compilation_cache"]


def test_a_relative_folder_is_that_of_the_start(unset, tmp_path):
    unset.chdir(tmp_path)
    keep_compiled_programs("mine")
    assert os.path.dirname(jax.config.values["jax_compilation_cache_dir"]) == str(tmp_path / "mine")
    unset.setenv(VARIABLE, "of the variable")
    assert programs_folder().parent == tmp_path / "of the variable"


def test_several_processes_keep_programs_only_where_the_user_says(unset, tmp_path):
    unset.setattr(jax.distributed, "is_initialized", lambda: True)
    keep_compiled_programs()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert describe()["folder"] is None
    unset.setenv(VARIABLE, str(tmp_path / "shared"))
    keep_compiled_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(programs_folder())
    keep_compiled_programs(str(tmp_path / "named"))
    assert "named" in jax.config.values["jax_compilation_cache_dir"]
