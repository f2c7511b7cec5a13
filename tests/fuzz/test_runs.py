"""Tests metrics.jsonl and config.json of a run with any bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax import config as config_lib
from gpt2_jax.training.metrics_file import last_evaluation
from gpt2_jax.training.trackers import JsonLines
from gpt2_jax.training.workdir import read_run_config
from tests.fuzz.commands import cases, refusal_or_success
from tests.fuzz.damage import damaged, other_json

_VALUES = {"step": 20, "tokens": 2560, "loss": 2.5, "eval/loss": 2.75, "eval/perplexity": None}
_good_values = st.builds(
    lambda values, **changes: values | changes,
    st.sampled_from([_VALUES, {"step": 3, "loss": 1e-3}, {"step": 0}]),
    step=st.integers(0, 40),
    loss=st.floats(allow_nan=False, allow_infinity=False),
)
_good = _good_values.map(lambda values: json.dumps(values).encode())
_lines = st.one_of(
    _good,
    other_json(_VALUES),
    damaged(json.dumps(_VALUES).encode()),
    _good.map(lambda line: line[: len(line) // 2]),
    _good.map(lambda line: line.decode().encode("utf-16")),
    st.sampled_from([b"", b"[]", b'"step"', b'{"step": NaN}', b'{"step": true}', b"\0" * 40]),
)


def _step(line: bytes) -> int | None:
    """Returns the step of a line that a run may have written, or None."""
    try:
        values = json.loads(str(line, "utf-8"))
    except (ValueError, RecursionError):
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return step if type(step) is int and step >= 0 else None


@cases(400)
@given(
    lines=st.lists(_lines, max_size=6),
    torn=st.booleans(),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    start=st.integers(0, 40),
)
def test_any_lines_of_metrics(
    tmp_path: Path, lines: list[bytes], torn: bool, ending: bytes, start: int
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ending.join(lines) + (b"" if torn else ending))
    tracker = JsonLines(tmp_path, start)
    tracker.log(start + 1, {"loss": 1.0})
    tracker.close()
    separate = [piece for line in lines for piece in line.splitlines()]
    good = [line for line in separate if (step := _step(line)) is not None and step <= start]
    *kept, new = path.read_bytes().splitlines()
    assert kept == good
    assert json.loads(new) == {"step": start + 1, "loss": 1.0}

    numbers, step = last_evaluation(tmp_path)
    assert 0 <= step <= start
    assert all(name.startswith("eval/") and abs(float(x)) >= 0 for name, x in numbers.items())
    if good and json.loads(good[-1]).get("eval/loss") == _VALUES["eval/loss"]:
        assert (numbers["eval/loss"], step) == (_VALUES["eval/loss"], json.loads(good[-1])["step"])


@cases(300)
@given(content=st.binary(max_size=300))
def test_any_bytes_for_lines_of_metrics(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    assert last_evaluation(tmp_path)[1] >= 0
    JsonLines(tmp_path, 5).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() in (b"", content.rstrip(b"\r\n") + b"\n")


_CONFIG = config_lib.to_dict(config_lib.Config())


@cases(400)
@given(content=other_json(_CONFIG) | damaged(json.dumps(_CONFIG).encode()))
def test_any_config_of_a_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with refusal_or_success():
        config: Any = read_run_config(tmp_path)
        assert config_lib.from_dict(config_lib.to_dict(config)) == config
    assert (tmp_path / "config.json").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
