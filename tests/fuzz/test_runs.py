"""What lies in a run's folder: rows of metrics and config.json, of any bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax import config as config_lib
from gpt2_jax.formats.load import read_run_config
from gpt2_jax.train.metrics import MetricsWriter
from gpt2_jax.train.metrics_file import last_evaluation
from tests.fuzz.commands import cases, refusal_or_success
from tests.fuzz.damage import damaged, other_json

_ROW = {"step": 20, "tokens": 2560, "loss": 2.5, "eval/loss": 2.75, "eval/perplexity": None}
_rows = st.builds(
    lambda row, **values: row | values,
    st.sampled_from([_ROW, {"step": 3, "loss": 1e-3}, {"step": 0}]),
    step=st.integers(0, 40),
    loss=st.floats(allow_nan=False, allow_infinity=False),
)
_good = _rows.map(lambda row: json.dumps(row).encode())
_lines = st.one_of(
    _good,
    other_json(_ROW),
    damaged(json.dumps(_ROW).encode()),
    _good.map(lambda line: line[: len(line) // 2]),
    _good.map(lambda line: line.decode().encode("utf-16")),
    st.sampled_from([b"", b"[]", b'"step"', b'{"step": NaN}', b'{"step": true}', b"\0" * 40]),
)


def _step(line: bytes) -> int | None:
    """The step of a row as a run writes it."""
    try:
        row = json.loads(str(line, "utf-8"))
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return step if type(step) is int and step >= 0 else None


@cases(400)
@given(
    lines=st.lists(_lines, max_size=6),
    torn=st.booleans(),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    start=st.integers(0, 40),
)
def test_any_rows_of_metrics(
    tmp_path: Path, lines: list[bytes], torn: bool, ending: bytes, start: int
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ending.join(lines) + (b"" if torn else ending))
    writer = MetricsWriter(tmp_path)
    writer.open(start, tensorboard=False)
    writer.write(start + 1, {"loss": 1.0})
    writer.close()
    separate = [part for line in lines for part in line.splitlines()]
    good = [line for line in separate if (step := _step(line)) is not None and step <= start]
    *kept, new = path.read_bytes().splitlines()
    assert kept == good
    assert json.loads(new) == {"step": start + 1, "loss": 1.0}

    numbers, step = last_evaluation(tmp_path)
    assert 0 <= step <= start
    assert all(name.startswith("eval/") and abs(float(x)) >= 0 for name, x in numbers.items())
    if good and json.loads(good[-1]).get("eval/loss") == _ROW["eval/loss"]:
        assert (numbers["eval/loss"], step) == (_ROW["eval/loss"], json.loads(good[-1])["step"])


@cases(300)
@given(content=st.binary(max_size=300))
def test_any_bytes_for_rows_of_metrics(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(content)
    assert last_evaluation(tmp_path)[1] >= 0
    writer = MetricsWriter(tmp_path)
    writer.open(5, tensorboard=False)
    writer.close()
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
