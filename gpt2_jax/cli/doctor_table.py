"""Prints the report of `gpt2-jax doctor` as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(report: dict[str, Any]) -> None:
    """Prints a report of `doctor.examine` on standard output."""
    console = Console(highlight=False)
    for heading, rows in (
        ("machine", _machine(report["machine"])),
        ("devices", [_device(device) for device in report["devices"]]),
        ("fast paths", [_checked(*item) for item in report["fast_paths"].items()]),
        ("vocabulary", [_checked(*item) for item in report["vocabulary"].items()]),
        ("extras", [_extra(*item) for item in report["extras"].items()]),
        ("versions", _versions(report["versions"])),
    ):
        table = Table(box=None, show_header=False, padding=(0, 2))
        for row in rows or [(Text("none", "red"),)]:
            table.add_row(*row)
        console.print(Text(heading, "bold"))
        console.print(table)
        console.print()
    for problem in report["problems"]:
        console.print(Text.assemble(("problem  ", "bold red"), problem))
    if not report["problems"]:
        console.print(Text("no problems found", "green"))


def _mark(on: bool | None) -> Text:
    words = {True: ("on", "green"), False: ("off", "yellow"), None: ("unknown", "yellow")}
    return Text(*words[on])


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / 2**30:.1f} GiB"


def _machine(machine: dict[str, Any]) -> list[tuple[str, ...]]:
    if not machine:
        return []
    return [
        ("system", machine["system"]),
        ("cores", str(machine["cores"])),
        ("memory", _size(machine["memory_bytes"])),
        ("free disk", _size(machine["disk_free_bytes"])),
    ]


def _device(device: dict[str, Any]) -> tuple[str, ...]:
    chip = f"peak figures of {device['chip']}" if device["chip"] else "no peak figures: no MFU"
    count = f"{device['count']} x {device['kind']}"
    return (device["platform"], count, _size(device["memory_bytes"]), chip)


def _checked(name: str, finding: dict[str, Any]) -> tuple[str | Text, ...]:
    on = finding["on"] if "on" in finding else finding["ok"]
    mark = _mark(on) if "on" in finding else Text("good", "green") if on else Text("bad", "red")
    return (name.replace("_", " "), mark, finding["detail"])


def _extra(name: str, finding: dict[str, Any]) -> tuple[str | Text, ...]:
    if finding["installed"]:
        return (name, Text("installed", "green"))
    return (name, Text("not installed", "dim"), "missing: " + ", ".join(finding["missing"]))


def _versions(versions: dict[str, str | None]) -> list[tuple[str | Text, ...]]:
    """Returns rows of two packages each, because the list is long."""
    cells = [(name, version or Text("missing", "red")) for name, version in versions.items()]
    half = (len(cells) + 1) // 2
    right = [*cells[half:], ("", "")]
    return [(*left, *other) for left, other in zip(cells[:half], right, strict=False)]
