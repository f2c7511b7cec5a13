"""Reports of sweeps: a folder's report.md and report.html, and a table over many folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from gpt2_jax.errors import UserError, warn
from gpt2_jax.files.atomic import write_file
from gpt2_jax.sweeps.report import words
from gpt2_jax.sweeps.report.against import Standing
from gpt2_jax.sweeps.report.against_page import against_page
from gpt2_jax.sweeps.report.as_json import as_json as as_json_object
from gpt2_jax.sweeps.report.comparison import compare_arms
from gpt2_jax.sweeps.report.markdown import markdown, table, verdict_table
from gpt2_jax.sweeps.report.outcomes import SweepOutcomes, read_sweep
from gpt2_jax.sweeps.report.page import page
from gpt2_jax.sweeps.report.png import require_matplotlib, write_pngs
from gpt2_jax.sweeps.report.question import question
from gpt2_jax.sweeps.report.rates import best_rates
from gpt2_jax.sweeps.report.references import Reference


def write_report(folder: Path, out: Path, *, png: bool = False, as_json: bool = False) -> str:
    """Writes report.md and report.html, and returns the verdict tables as Markdown.

    Args:
      folder: of a sweep or a record.
      out: where to write; it is made if it is missing.
      png: whether to write the charts as images, too.
      as_json: whether to return all numbers as a JSON document instead.

    Raises:
      UserError: if the folder is not that of a sweep, `out` cannot be written, or matplotlib is
        asked for and not installed.
    """
    if png:
        require_matplotlib()  # before anything is written
    sweep = read_sweep(folder)
    written = _write(out, {"report.md": markdown(sweep), "report.html": page(sweep)})
    if png:
        written += [str(path) for path in write_pngs(sweep, out)]
    if as_json:
        return json.dumps(as_json_object(sweep), indent=2)
    tables = [f"stage {stage}\n{verdict_table(sweep, stage)}" for stage in sweep.stages]
    listed = " and ".join(filter(None, [", ".join(written[:-1]), written[-1]]))
    return "\n\n".join([*tables, f"wrote {listed}"])


def write_against(standing: Standing, reference: Reference, run: str, out: Path) -> None:
    """Writes against.html: a run beside a reference.

    Raises:
      UserError: if `out` cannot be written.
    """
    _write(out, {"against.html": against_page(standing, reference, run)})


def _write(out: Path, contents: Mapping[str, str]) -> list[str]:
    """Writes files into a folder, and returns their paths."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_file(out / name, content.encode())
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UserError(f"cannot write in {out}: {error.strerror}; name an --out") from error
    return [str(out / name) for name in contents]


_NO_SWEEPS_BELOW = ("checkpoints", "samples", "tensorboard", "__pycache__")
_COLUMNS = (
    *("record", "question", "stage", "arm", "seeds", "tokens a run", "metric", "mean [95 %]"),
    *("difference [95 %]", "verdict", "commit"),
)


def overview(folder: Path) -> str:
    """Returns one table over the last stage of every sweep and record below a folder.

    Of a stage without comparisons, arms of several learning rates have a line for the best one.
    One that cannot be read gets a warning, and is left out.

    Raises:
      UserError: if there is none, or none of them can be read.
    """
    if not folder.is_dir():
        raise UserError(f"--all {folder}: there is no such folder")
    found = list(_sweeps_below(folder))
    if not found:
        raise UserError(f"--all {folder} has no sweeps: none of its folders has a sweep.json")
    rows, problems = [], []
    for each in found:
        try:
            rows += _overview_rows(each.relative_to(folder).as_posix(), read_sweep(each))
        except UserError as error:
            problems.append(str(error))
    if not rows:
        raise UserError("; ".join(problems))
    for problem in problems:
        warn(f"left out: {problem}")
    return table(_COLUMNS, rows)


def _sweeps_below(folder: Path) -> Iterator[Path]:
    """Yields the folders of sweeps, which have no others below them, in order."""
    if (folder / "sweep.json").exists():
        yield folder
        return
    for each in sorted(folder.iterdir()):
        if each.is_dir() and each.name not in _NO_SWEEPS_BELOW:
            yield from _sweeps_below(each)


def _overview_rows(name: str, sweep: SweepOutcomes) -> list[list[str]]:
    stage = sweep.stages[-1]
    asked = question(sweep.folder, sweep.sweep_file) or words.NONE
    found = re.search(r"commit (.+)", sweep.environment.get("gpt2_jax", ""))
    commit = found[1] if found else words.NONE
    best = {} if sweep.baseline else best_rates(sweep, stage)
    rows = []
    for row in compare_arms(sweep, stage):
        of_rates, count = best.get(row.arm, (row.arm, 1))
        if of_rates != row.arm:
            continue
        arm, seeds, mean, difference, verdict = words.cells(row, sweep)[:5]
        tokens = max(map(words.tokens_of, row.points), default=0)
        length = words.count_text(tokens) if tokens else words.NONE
        rows.append([name, asked, stage, arm, seeds, length, sweep.metric, mean])
        rows[-1] += [difference, f"best of {count} rates" if count > 1 else verdict, commit]
    return rows
