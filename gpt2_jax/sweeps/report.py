"""Reports of sweeps: a folder's report.md and report.html, and a table over many folders."""

from __future__ import annotations

from pathlib import Path

from gpt2_jax.errors import UserError
from gpt2_jax.files.atomic import write_file
from gpt2_jax.sweeps import words
from gpt2_jax.sweeps.comparison import compare_arms
from gpt2_jax.sweeps.markdown import markdown, table, verdict_table
from gpt2_jax.sweeps.outcomes import SweepOutcomes, read_sweep
from gpt2_jax.sweeps.page import page


def write_report(folder: Path, out: Path) -> str:
    """Writes report.md and report.html, and returns the verdict tables as Markdown.

    Args:
      folder: of a sweep.
      out: where to write; it is made if it is missing.

    Raises:
      UserError: if the folder is not that of a sweep, or `out` cannot be written.
    """
    sweep = read_sweep(folder)
    contents = {"report.md": markdown(sweep), "report.html": page(sweep)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_file(out / name, content.encode())
    except PermissionError as error:
        raise UserError(f"cannot write in {out}: {error.strerror}; name an --out") from error
    tables = [f"stage {stage}\n{verdict_table(sweep, stage)}" for stage in sweep.stages]
    return "\n\n".join([*tables, f"wrote {out / 'report.md'} and {out / 'report.html'}"])


_COLUMNS = ("sweep", "stage", "arm", "seeds", "metric", "mean [95 %]", "difference [95 %]")


def overview(folder: Path) -> str:
    """Returns one table over the last stage of every sweep below a folder.

    Raises:
      UserError: if there is none, or one of them is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"--all {folder}: there is no such folder")
    found = sorted(path.parent for path in folder.rglob("sweep.json"))
    if not found:
        raise UserError(f"--all {folder} has no sweeps: none of its folders has a sweep.json")
    rows = []
    for each in found:
        rows += _overview_rows(each.relative_to(folder).as_posix(), read_sweep(each))
    return table((*_COLUMNS, "verdict"), rows)


def _overview_rows(name: str, sweep: SweepOutcomes) -> list[list[str]]:
    stage = sweep.stages[-1]
    rows = []
    for row in compare_arms(sweep, stage):
        arm, seeds, mean, difference, verdict = words.cells(row, sweep)[:5]
        rows.append([name, stage, arm, seeds, sweep.metric, mean, difference, verdict])
    return rows
