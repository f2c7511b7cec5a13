"""Tests that every engine gives the same results and raises the same errors."""

from __future__ import annotations

import sys
import types

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare.engines import open_engine
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare


def square(number):
    if number == 13:
        raise UserError("no luck with 13")
    return number * number


def squares(numbers, name="processes", workers=2):
    with open_engine(name, workers, None) as engine:
        return dict(engine.map(square, numbers))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_has_its_result(workers):
    for count in (0, 1, 12):
        assert squares(range(count), workers=workers) == {i: i * i for i in range(count)}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_is_raised_as_it_is(workers):
    with pytest.raises(UserError, match="no luck with 13"):
        squares(range(20), workers=workers)


def test_one_engine_maps_more_than_once():
    with open_engine("processes", 2, None) as engine:
        assert dict(engine.map(square, [3, 4])) == {0: 9, 1: 16}
        assert dict(engine.map(square, [5, 6])) == {0: 25, 1: 36}


def test_settings_out_of_range_are_refused(monkeypatch):
    for arguments, message in (
        (("processes", 0, None), "workers must be at least 1"),
        (("threads", 1, None), "engine must be one of processes, ray"),
        (("processes", 1, "auto"), "--ray_address needs --engine ray"),
    ):
        with pytest.raises(UserError, match=message), open_engine(*arguments):
            pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="--engine ray needs the cluster extra"):
        squares([1], "ray")


def test_a_ray_that_does_not_start_is_reported_in_one_line(monkeypatch):
    def init(**settings):
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(init=init))
    with pytest.raises(UserError, match=r"^cannot reach Ray at this machine: The current"):
        squares([1], "ray")


@pytest.mark.ray
def test_ray_gives_the_same_shards_and_the_same_errors(tmp_path):
    text = "".join(f"line {i} of a naïve text\n" for i in range(5000))
    (tmp_path / "text.txt").write_text(text)
    corpus = read_inputs([tmp_path / "text.txt"])
    for engine in ("processes", "ray"):
        out = tmp_path / engine
        prepare(corpus, "gpt2", out, work_item_bytes=1 << 14, workers=2, engine=engine)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / engine).iterdir()}
        for engine in ("processes", "ray")
    ]
    assert files[0] == files[1]
    (tmp_path / "bad.txt").write_bytes(b"good " * 5000 + b"\xff")
    with pytest.raises(UserError) as error:
        prepare(
            read_inputs([tmp_path / "bad.txt"]), "gpt2", tmp_path / "x", workers=2, engine="ray"
        )
    assert "bad.txt is not UTF-8 text: byte 25000 is 0xff" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot reach Ray at localhost:1"):
        prepare(corpus, "gpt2", tmp_path / "y", engine="ray", ray_address="localhost:1")
