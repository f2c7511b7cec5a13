"""The README.md of a record: its sections, and the parts that follow from the results."""

from __future__ import annotations

import re
from pathlib import Path

from gpt2_jax.errors import UserError
from gpt2_jax.sweeps.report.markdown import facts, summary, table, verdict_table
from gpt2_jax.sweeps.report.outcomes import SweepOutcomes
from gpt2_jax.sweeps.report.question import question

_TO_WRITE = "*To be written:*"
# What each section says; the first words of a heading are enough to recognize it.
_SECTIONS = {
    "Question": "what is asked, in one sentence, and why it matters.",
    "Prediction": "what was expected, with numbers, written before the runs.",
    "Setting": "what all runs share, and what differs.",
    "Result": "one sentence that answers the question.",
    "Meaning": "what to do differently now, and what these runs cannot tell.",
    "Agreement with the literature": "which published results agree or do not, with sources.",
}
_BEGIN, _END = "<!-- {}: written by gpt2-jax report --record -->", "<!-- end -->"


def updated(sweep: SweepOutcomes, out: Path, *, command: str) -> bytes:
    """Returns the README of a record: the one that is there, or a new one with all sections.

    Between the marks of a new one, the setting and the results are those of the sweep; they are
    written again each time. Whatever is outside of marks stays as it is.

    Raises:
      UserError: if a README that is there cannot be read.
    """
    path = out / "README.md"
    text = _new(out.name, question(out, sweep.sweep_file))
    if path.exists():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path} ({error}): restore it, or remove it") from error
    for name, content in _generated(sweep, command).items():
        begin = _BEGIN.format(name)
        pattern = re.escape(begin) + r".*?" + re.escape(_END)
        part = f"{begin}\n{content}\n{_END}"
        text = re.sub(pattern, lambda _, part=part: part, text, flags=re.DOTALL)
    return text.encode()


def lacking(text: str) -> list[str]:
    """Returns the sections that a README does not have, or that are still to be written.

    The question may be the README's title.
    """
    parts = re.split(r"^#+ +(.*)$", text, flags=re.MULTILINE)
    found = {
        heading.strip().lower(): content
        for heading, content in zip(parts[1::2], parts[2::2], strict=True)
    }
    missing = []
    for section in _SECTIONS:
        contents = [content for name, content in found.items() if name.startswith(section.lower())]
        is_title = section == "Question" and any(name.endswith("?") for name in found)
        if any(_TO_WRITE in content for content in contents) or not (contents or is_title):
            missing.append(section.lower())
    return missing


def _new(name: str, asked: str) -> str:
    """Returns the text of a README whose sections are to be written.

    Args:
      name: of the record's folder.
      asked: the question, if the sweep file has it.
    """
    date = re.match(r"(\d{4}-\d{2}-\d{2})[_-]", name)
    words = (name[date.end() :] if date else name).replace("_", " ")
    parts = [f"# {asked or words.capitalize()}"]
    if date:
        parts.append(f"{date[1]}.")
    for section, what in _SECTIONS.items():
        if section == "Question" and asked.endswith("?"):
            continue
        parts += [f"## {section}", f"{_TO_WRITE} {what}"]
        generated = {"Setting": "setting", "Result": "result"}.get(section)
        if generated:
            parts.append(f"{_BEGIN.format(generated)}\n{_END}")
    return "\n\n".join(parts) + "\n"


def _generated(sweep: SweepOutcomes, command: str) -> dict[str, str]:
    """Returns {name of a marked part: its content}."""
    rows = [[name, value] for name, value in facts(sweep)]
    setting = [table(("what", "value"), rows), f"```sh\n{command}\n```"]
    result = [summary(sweep)]
    for stage in sweep.stages:
        result += [f"Stage {stage}:"] if len(sweep.stages) > 1 else []
        result.append(verdict_table(sweep, stage))
    result.append(
        "Curves and cautions are in [report.md](report.md) and [report.html](report.html)."
    )
    return {"setting": "\n\n".join(setting), "result": "\n\n".join(result)}
