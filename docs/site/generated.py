"""Writes the parts of the site's pages that follow from code: knobs, commands, records, notebook.

A page of docs/ has a comment such as `<!-- generated: knobs -->` where a part belongs.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from gpt2_jax import config
from gpt2_jax.cli.main import VERBS
from gpt2_jax.cli.verb import make_parser
from gpt2_jax.config.knob import MOST, Knob

_PART = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


@functools.cache
def expanded(text: str, root: Path) -> str:
    """Returns a page's text with its generated parts.

    Raises:
      KeyError: if the page asks for a part that does not exist.
    """
    return _PART.sub(lambda match: PARTS[match[1]](root), text)


def knobs(root: Path) -> str:
    """Returns a table for each section of the config: knobs, defaults, meaning, what is allowed."""
    sections: dict[str, list[str]] = {}
    for knob in config.knobs():
        name = f"`{knob.key}`<br>{_default(knob.default)}"
        meaning = f"{_cell(knob.help)}<br>{_allowed(knob)}"
        section = knob.key.partition(".")[0]
        sections.setdefault(section, []).append(f"| {name} | {meaning} |")
    head = "| knob and default | meaning, and what is allowed |\n|---|---|\n"
    return "\n\n".join(
        f"## `{section}`\n\n{head}" + "\n".join(rows) for section, rows in sections.items()
    )


def _default(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else "empty text"


def _allowed(knob: Knob) -> str:
    if knob.choices:
        return ", ".join(f"`{choice}`" for choice in knob.choices)
    if knob.type is bool:
        return "`true`, `false`"
    if knob.type is str:
        return "path" if knob.is_path else "text"
    limits = [] if knob.low is None else [f"≥ {knob.low:g}"]
    limits += [] if knob.below is None else [f"< {knob.below:g}"]
    limits += [f"≤ {knob.high:g}"] if knob.high < MOST else []
    return " ".join(["integer" if knob.type is int else "number", ", ".join(limits)]).strip()


def _cell(text: str) -> str:
    """Returns a text as a cell of a table, where a bar and what looks like HTML are escaped."""
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text)


def commands(root: Path) -> str:
    """Returns the --help of every verb."""
    parts = []
    for name, summary in VERBS.items():
        parser = make_parser(name, importlib.import_module(f"gpt2_jax.cli.{name}"))
        text = parser.format_help().rstrip()
        parts.append(f"## `{name}`\n\n{summary[0].upper()}{summary[1:]}.\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def records(root: Path) -> list[str]:
    """Returns the paths of the records, in the order of their names."""
    found = sorted((root / "experiments" / "records").glob("*/README.md"))
    return [path.parent.relative_to(root).as_posix() for path in found]


def _record_list(root: Path) -> str:
    """Returns what each record asked and found, in the words of its README."""
    parts = []
    for record in records(root):
        text = (root / record / "README.md").read_text(encoding="utf-8")
        title = text.removeprefix("# ").partition("\n")[0]
        found = re.search(r"^## Result\n+(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
        place = f"../{record}"
        links = [f"[the record]({place}/README.md)", f"[its sweep file]({place}/sweep.py)"]
        if (root / record / "report.html").is_file():
            links.append(f"[curves and intervals]({place}/report.html)")
        words = found[1] if found else ""
        parts.append(f"## [{title}]({place}/README.md)\n\n{words}\n\n{' · '.join(links)}")
    return "\n\n".join(parts)


def listing(folder: Path) -> str:
    """Returns a page with links to the files of a folder, and what modules say that they are."""
    rows = []
    for path in sorted(filter(Path.is_file, folder.iterdir())):
        row = f"- [{path.name}]({folder.name}/{path.name})"
        if path.suffix == ".py":
            words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            row += ": " + words.split("\n\n")[0].replace("\n", " ")
        rows.append(row)
    return f"# {folder.name}\n\n" + "\n".join(rows) + "\n"


def notebook(path: Path) -> str:
    """Returns a notebook as Markdown: texts, code, and what the code printed."""
    cells = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cells.append(source)
            continue
        cells.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            printed = output.get("text") or output["data"]["text/plain"]
            cells.append(f"``` {{ .text .printed }}\n{''.join(printed).rstrip()}\n```")
    return "\n\n".join(cells) + "\n"


PARTS: dict[str, Callable[[Path], str]] = {
    "knobs": knobs,
    "commands": commands,
    "records": _record_list,
}
"""What a page may ask for, by name."""
