"""Tests that what the documents name exists, and that they name what the server has."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

from gpt2_jax.cli import main
from gpt2_jax.cli.verb import parse
from gpt2_jax.errors import Gpt2JaxError
from gpt2_jax.serve import completions, description, errors
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.worker import State

_ROOT = Path(__file__).parents[1]


def test_every_test_that_the_page_on_reliability_names_exists():
    page = (_ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in page.splitlines() if re.match(r"\| \d+ \|", line))
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", table)
    assert len(named) > 40
    for path, name in named:
        content = (_ROOT / "tests" / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in content, f"{path}::{name}"


def test_the_readme_has_every_exit_status_but_those_of_success_and_mistakes():
    text = (_ROOT / "README.md").read_text(encoding="utf-8").partition("| status | meaning |")[2]
    named = re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
    statuses = {int(status) for cell in named for status in cell.split(", ")}
    kinds = {kind.exit_status for kind in Gpt2JaxError.__subclasses__()}
    signals = {main._INTERRUPTED, main._BROKEN_PIPE, main._TERMINATED}
    assert statuses == {1} | kinds - {2} | signals


_SERVING = (_ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def _rows(heading: str) -> list[list[str]]:
    """Returns the cells of the first table behind a heading of the page on serving."""
    rows = re.search(r"(?:^\|.*\n)+", _SERVING.partition(f"\n{heading}\n")[2], re.MULTILINE)
    assert rows
    return [row.strip("| ").split(" | ") for row in rows[0].splitlines()[2:]]


def test_the_page_on_serving_has_every_field_with_its_default_and_range():
    rows = _rows("## `POST /v1/completions`")
    assert [name for name, _, _ in rows] == [f"`{field.name}`" for field in completions.FIELDS]
    for (name, default, rule), field in zip(rows, completions.FIELDS, strict=True):
        if field.required:
            assert default == "required"
        elif field.name == "prompt":
            assert [json.loads(default.strip("`"))] == field.default
        else:
            assert json.dumps(field.default) == default.strip("`"), name
        if field.name != "seed":  # its range is that of 64 bits
            limits = [field.schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum")]
            for limit in limits:
                assert limit is None or re.search(rf"(?<![\d.]){limit}\b", rule), (name, limit)
    nested = set(re.findall(r"`(include_\w+)`", _SERVING))
    (options,) = [field for field in completions.FIELDS if field.name == "stream_options"]
    assert nested == set(options.schema["properties"])


def test_the_page_on_serving_has_every_path_status_code_and_metric():
    paths = set(description.openapi()["paths"])
    named = re.findall(r"`(?:GET|POST) (/[^`]*)`", "\n".join(map(" ".join, _rows("## Clients"))))
    assert set(named) == paths
    rows = _rows("## Errors")
    assert [int(status) for status, _, _ in rows] == [*errors.STATUSES]
    codes = {code for _, cell, _ in rows for code in re.findall(r"`(\w+)`", cell)}
    sources = [path.read_text(encoding="utf-8") for path in (_ROOT / "gpt2_jax/serve").glob("*.py")]
    given = {code for text in sources for code in re.findall(r'code="(\w+)"', text)}
    assert codes == given | {state.value for state in State} - {"ready"}
    metrics = {name for cell, _ in _rows("## Metrics") for name in re.findall(r"`(\w+)`", cell)}
    text = Metrics().text().decode()
    families = set(re.findall(r"^# TYPE gpt2_jax:(\w+) ", text, re.MULTILINE))
    assert metrics == families


def test_the_commands_of_the_page_on_serving_parse():
    found = re.findall(r"^    (gpt2-jax .*)$", _SERVING.replace("\\\n", " "), re.MULTILINE)
    assert len(found) > 4
    for line in found:
        _, verb, *words = shlex.split(line)
        parse(verb, importlib.import_module(f"gpt2_jax.cli.{verb}"), words)


def test_no_link_between_pages_is_broken():
    for page in [*(_ROOT / "docs").glob("*.md"), _ROOT / "README.md", _ROOT / "launch/README.md"]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                text = target.read_text(encoding="utf-8")
                heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
                anchors = [re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in heads]
                anchors += re.findall(r'^<a id="([\w-]+)"></a>$', text, re.MULTILINE)
                assert anchor in anchors, f"{page.name}: {link}"
