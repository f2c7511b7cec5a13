from __future__ import annotations

import importlib.util
import os

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.planning import topology
from gpt2_jax.planning.topology import SLICES, captured_stderr, parse_topology


@pytest.mark.parametrize("kind", SLICES)
def test_every_slice_parses_and_has_what_an_estimate_needs(kind):
    for shape in SLICES[kind]:
        found = parse_topology(f"{kind}:{shape}")
        assert found.name == f"{kind}:{shape}"
        product = 1
        for n in shape.split("x"):
            product *= int(n)
        assert found.num_devices == product
        assert found.chip.clock_hz and found.chip.usable_hbm_bytes < found.chip.hbm_bytes * 1.01


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e", "give CHIP:SHAPE"),
        ("v5f:4x4", "did you mean"),
        ("v5e:3x3", "v5e comes as 1x1, 2x2"),
        ("", "give CHIP:SHAPE"),
        ("v5e:4x4x4", "v5e comes as"),
    ],
)
def test_a_slice_that_does_not_exist_is_one_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_topology(name)
    assert "\n" not in str(caught.value)
    assert name not in str(caught.value).partition("did you mean")[2] or not name


def test_without_libtpu_a_slice_has_no_devices(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not topology.libtpu_installed()
    with pytest.raises(UserError, match=r"pip install 'gpt2_jax\[tpu\]'"):
        parse_topology("v5e:2x2").devices()


def test_what_c_writes_to_stderr_is_kept_and_the_stream_put_back(capfd):
    with captured_stderr() as lines:
        os.write(2, b"from below\nand more\n")
    os.write(2, b"after\n")
    assert lines == ["from below", "and more"]
    assert capfd.readouterr().err == "after\n"
