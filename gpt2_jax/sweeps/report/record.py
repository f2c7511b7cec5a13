"""Records: a small folder with all that a sweep has shown, to be kept beside the code.

A record has the layout of a sweep's folder (see `folder.py`), so that every report reads it after
the sweep's folder is gone. Checkpoints, samples and most lines of metrics.jsonl are left out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.errors import UserError, warn
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import is_remote
from gpt2_jax.sweeps.folder import SAME, read_object
from gpt2_jax.sweeps.report import readme
from gpt2_jax.sweeps.report.markdown import markdown, verdict_table
from gpt2_jax.sweeps.report.outcomes import (
    Outcome,
    SweepOutcomes,
    read_sweep,
)
from gpt2_jax.sweeps.report.page import page
from gpt2_jax.sweeps.report.position_bins import binned
from gpt2_jax.sweeps.report.position_file import LOSSES
from gpt2_jax.sweeps.report.thinning import VERIFIED_LINES, thinned

LARGEST = 300_000
"""The bytes of a record above which a warning is printed: it goes into a repository."""
_METRICS_BYTES = 70_000  # about as many for the lines of all points together
_LINE_BYTES = 90  # of a line of the training and, as often, of one of a validation
_FEWEST_LINES, _MOST_LINES = 12, 100


def write_record(folder: Path, out: Path) -> str:
    """Writes the record of a sweep, or brings one up to date.

    A README.md that is there stays as it is, apart from the parts that `readme.py` marks.

    Args:
      folder: of the sweep.
      out: the record's folder, which is made if it is missing. It may have a README.md and the
        sweep file already.

    Returns:
      What was written, and what the README still lacks.

    Raises:
      UserError: if `folder` is not that of a sweep, `out` holds anything else, or it cannot be
        written.
    """
    sweep = read_sweep(folder)
    if not is_remote(folder) and out.resolve() == folder.resolve():
        raise UserError(f"--record {out} is the sweep's own folder: name another folder")
    described = read_object(folder / "sweep.json")
    _check_place(out, described)
    if not (folder / "results.csv").is_file():
        raise UserError(f"{folder} has no results.csv: run the sweep again to write it")
    points = [dataclasses.replace(p, command=_command(p, out)) for p in sweep.points]
    contents = {
        Path("sweep.json"): _json(described, indent=2),
        Path("results.csv"): (folder / "results.csv").read_bytes(),
    }
    contents |= _sweep_file(folder, sweep, out)
    for point in points:
        contents |= _point(folder, point, _lines_per_point(len(points)))
    _write(out, contents)
    _remove_others(out, contents)
    recorded = read_sweep(out)  # so that a report of the record is the one that it has
    pages = {
        Path("report.md"): markdown(recorded).encode(),
        Path("report.html"): page(recorded).encode(),
        Path("README.md"): readme.updated(recorded, out, command=_sweep_command(sweep, out)),
    }
    _write(out, pages)
    return _summary(recorded, out, contents | pages)


def _check_place(out: Path, described: dict[str, Any]) -> None:
    """Refuses a folder that holds another record, or something else than a record."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--record {out} is not a folder")
    if (out / "sweep.json").exists():
        before = read_object(out / "sweep.json")
        if changed := [key for key in SAME if before.get(key) != described.get(key)]:
            raise UserError(
                f"--record {out} holds the record of another sweep, whose {changed[0]} is "
                f"{before.get(changed[0])!r} instead of {described.get(changed[0])!r}: name "
                "another folder"
            )
        return
    others = sorted(
        each.name for each in out.iterdir() if each.is_dir() or each.suffix not in (".md", ".py")
    )
    others = [name for name in others if name != "__pycache__"]
    if others:
        raise UserError(
            f"--record {out} is not the folder of a record: it has {others[0]}; name a new folder"
        )


def _lines_per_point(points: int) -> int:
    share = _METRICS_BYTES // points - VERIFIED_LINES * _LINE_BYTES
    return min(max(share // (2 * _LINE_BYTES), _FEWEST_LINES), _MOST_LINES)


def _point(folder: Path, point: Outcome, most: int) -> dict[Path, bytes]:
    """Returns {path in the record: content} of a point."""
    source, place = folder / "points" / point.name, Path("points") / point.name
    described = read_object(source / "point.json") | {"command": point.command}
    contents = {place / "point.json": _json(described)}
    if (source / "status.json").exists():
        contents[place / "status.json"] = _json(read_object(source / "status.json"))
    if point.config:
        contents[place / "run" / "config.json"] = _json(point.config)
    if point.lines:
        lines = thinned(point.lines, most)
        contents[place / "run" / "metrics.jsonl"] = b"".join(map(_json, lines))
    if losses := point.loss_by_position:
        means = [None if np.isnan(x) else float(f"{x:.6g}") for x in binned(losses)]
        values = {"step": point.last_validation, "length": len(losses), LOSSES: means}
        contents[place / "run" / f"{LOSSES}.json"] = _json(values)
    return contents


def _sweep_file(folder: Path, sweep: SweepOutcomes, out: Path) -> dict[Path, bytes]:
    """Returns {name in the record: content} of the sweep file as it was run.

    It is empty if the record has another file of its name, which stays, with a warning.
    """
    name = Path(sweep.sweep_file).name
    ran, recorded = folder / name, out / name
    if not name or not ran.is_file():
        warn(f"{folder} has no copy of the sweep file: run the sweep again to write it")
        return {}
    content = ran.read_bytes()
    if recorded.is_file() and recorded.read_bytes() != content:
        warn(f"{recorded} stays, but it is not the sweep file that was run, which is {ran}")
        return {}
    return {Path(name): content}


def _command(point: Outcome, out: Path) -> str:
    """Returns the command of a point with a workdir and a config that other machines have too."""
    words = shlex.split(point.command)
    for flag in ("--workdir", "--config"):
        if flag in words[:-1]:
            place = words.index(flag) + 1
            path = f"runs/{out.name}/{point.name}" if flag == "--workdir" else words[place]
            words[place] = _from_here(path)
    return shlex.join(words)


def _sweep_command(sweep: SweepOutcomes, out: Path) -> str:
    name = Path(sweep.sweep_file).name or "sweep.py"
    words = ["gpt2-jax", "sweep", "--sweep", _from_here(str(out / name))]
    return shlex.join([*words, "--out", f"runs/{out.name}"])


def _from_here(path: str) -> str:
    """Returns an absolute path below the current folder relative to it, others as they are."""
    inside = os.path.isabs(path) and Path(path).is_relative_to(Path.cwd())
    return os.path.relpath(path) if inside else path


def _json(values: Any, indent: int | None = None) -> bytes:
    separators = (",", ":") if indent is None else None
    return (json.dumps(values, indent=indent, separators=separators) + "\n").encode()


def _write(out: Path, contents: dict[Path, bytes]) -> None:
    try:
        for name, content in contents.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != content:
                write_file(path, content)
    except OSError as error:
        raise UserError(f"cannot write --record {out}: {error.strerror}") from error


def _remove_others(out: Path, contents: dict[Path, bytes]) -> None:
    """Removes the files of points that an earlier version of the record has, and this one not."""
    for path in sorted((out / "points").rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(out) not in contents:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _summary(sweep: SweepOutcomes, out: Path, contents: dict[Path, bytes]) -> str:
    size = sum(map(len, contents.values()))
    if size > LARGEST:
        warn(f"{out} has {size:,} bytes, which is much for a repository")
    tables = [f"stage {stage}\n{verdict_table(sweep, stage)}" for stage in sweep.stages]
    written = f"wrote {out}: {len(sweep.points)} points, {len(contents)} files, {size:,} bytes"
    lacking: Sequence[str] = readme.lacking(contents[Path("README.md")].decode())
    todo = f"{out / 'README.md'} still lacks: {', '.join(lacking)}" if lacking else ""
    return "\n\n".join(filter(None, [*tables, written, todo]))
