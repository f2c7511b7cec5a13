"""Tests any config file: a wrong one is refused in one line with its name, and changes nothing."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax import config as config_lib
from tests.fuzz.commands import cases, ends_as_documented, snapshot

_KEYS = [knob.key for knob in config_lib.knobs()]
_HEADER = """\
import sys
import ml_collections
from ml_collections import config_dict
from gpt2_jax.config import default
from gpt2_jax import errors

def get_config():
    c = default()
"""
# Expressions in a config file, most of which are not a valid value of any knob.
_VALUES = (
    *("0", "1", "-1", "2**31", "2**63", "-2**63", "10**30", "10**400", "-10**400", "10**5000"),
    *("0.0", "0.5", "-0.0", "1e-320", "1e308", "float('inf')", "float('nan')", "1j", "True"),
    *("None", "''", "'gpt2'", "'none'", "'a=1,b=2'", "'a=1e999999999'", "'\\ud800'", "'\\0'"),
    *("'x' * 10**6", "b'x'", "[]", "[1] * 10**5", "()", "{}", "{'a': 1}", "{1: 2}", "set()"),
    *("int", "print", "lambda: 1", "object()", "...", "c", "c.model", "c.to_yaml()"),
    *("ml_collections.ConfigDict()", "ml_collections.ConfigDict({1: 2})", "default().model"),
    *("ml_collections.ConfigDict({'model': 1})", "ml_collections.ConfigDict({'model': {1: 2}})"),
    *("ml_collections.ConfigDict({'model': {'num_layers': 10**5000}})", "range(10)"),
    *("ml_collections.ConfigDict({'data': {'path': 'x' * 10**6, 'val_fraction': 10**400}})",),
    *("ml_collections.ConfigDict({'model': [[[]] * 10**5]})", "ml_collections.FrozenConfigDict()"),
    *("config_dict.placeholder(int)", "config_dict.required_placeholder(int)"),
    *("ml_collections.FieldReference(3)", "c.get_ref('model')", "c.to_json()", "c.to_dict()"),
    *("__import__('numpy').int64(3)", "__import__('numpy').arange(3)", "__import__('nothing')"),
    *("type('Int', (int,), {})(3)", "type('Text', (str,), {})('gpt2')", "1 / 0", "c.nothing"),
)  # fmt: skip
# KeyboardInterrupt is left out: it is what Ctrl-C raises, and ends with 130 as that does.
_EXCEPTIONS = sorted(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException) and name != "KeyboardInterrupt"
)
_CALLS = ("", "()", "(3)", "('text', 2)", "('two\\nlines')", "(None)", "('utf-8', b'x', 0, 1, 'y')")
_keys = st.sampled_from(_KEYS)
_values = st.sampled_from(_VALUES)
_statements = st.one_of(
    st.builds("c.{} = {}".format, _keys, _values),
    st.builds("c.{} = {}".format, st.sampled_from(["model", "data", "modle", "lock"]), _values),
    st.builds("c.{}x = {}".format, _keys, _values),
    st.builds("c.{}.{} = {}".format, _keys, st.sampled_from(["a", "real"]), _values),
    st.builds("with c.unlocked(): c.{} = {}".format, _keys | st.just("modle"), _values),
    st.builds("c.unlock().model[{0}] = {0}".format, _values),
    st.builds("c = {}".format, _values),
    st.builds("return {}".format, _values),
    st.builds("c.update({})".format, _values),
    st.builds("del c.{}".format, _keys | st.just("model")),
    st.builds("raise {}{}".format, st.sampled_from(_EXCEPTIONS), st.sampled_from(_CALLS)),
    st.builds("sys.exit({})".format, st.sampled_from(["", "0", "1", "2", "'why'", "None"])),
    st.sampled_from(["exit()", "raise errors.Preempted('x')", "raise OSError(28, 'full')"]),
    st.sampled_from(["class E(BaseException): pass\n    raise E()", "f = lambda: f(); f()"]),
    st.sampled_from(
        ["  c", "def", "c.model.num_layers = = 2", "return", "yield c", "'''", "\t\tc"]
    ),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _ends_well(folder: Path, content: bytes) -> None:
    (folder / "c.py").write_bytes(content)
    before = snapshot(folder)
    ended = ends_as_documented(["train", "--config", "c.py", "--show_knobs", "--json"])
    assert snapshot(folder) == before
    if ended.status:
        assert ended.status == 2
    else:  # what is shown is a whole config
        config_lib.from_dict(json.loads(ended.out))


@cases(600)
@given(
    statements=st.lists(_statements, max_size=3), end=st.sampled_from(["return c", "return c", ""])
)
def test_any_statements(here: Path, statements: list[str], end: str) -> None:
    lines = "".join(f"    {statement}\n" for statement in [*statements, end])
    _ends_well(here, (_HEADER + lines).encode("utf-8", "surrogatepass"))


@cases(150)
@given(values=st.dictionaries(_keys, _values, max_size=4))
def test_any_values_without_the_typed_default(here: Path, values: dict[str, str]) -> None:
    sections: dict[str, list[str]] = {}
    for key, value in values.items():
        section, name = key.split(".")
        sections.setdefault(section, []).append(f"{name!r}: {value}")
    text = ", ".join(f"{name!r}: {{{', '.join(items)}}}" for name, items in sections.items())
    _ends_well(here, f"{_HEADER}    return ml_collections.ConfigDict({{{text}}})\n".encode())


@cases(150)
@given(
    content=st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.builds(
        lambda opening, count: opening * count,
        st.sampled_from([b"(", b"-", b"[", b"x = ", b"lambda: ", b"if 1:\n ", b"1+", b"f(", b"\0"]),
        st.sampled_from([90, 150, 1000, 20000]),
    )
)
def test_any_bytes(here: Path, content: bytes) -> None:
    _ends_well(here, content)


@cases(150)
@given(data=st.data())
def test_damaged_files(here: Path, data: st.DataObject) -> None:
    content = bytearray((_HEADER + "    c.model.num_layers = 2\n    return c\n").encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    _ends_well(here, bytes(content))
