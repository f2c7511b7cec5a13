"""Turns the results of a suite into Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.benchmarks.summary import ceilings, floor_seconds, nominal_flops, slope

_HEAD = (
    "| program | part | ms | p10 to p90 | tokens/s | of ceiling | time / ours |",
    "|---|---|---|---|---|---|---|",
)
_BUSY = 0.1  # the part of the cores whose use by other processes makes times doubtful


def markdown(suite: str, content: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """Returns the report.

    Args:
      suite: the name of the suite.
      content: the results, as `Results` holds them.
      plots: title -> file of each plot beside the report.
    """
    rates = ceilings(content["cases"])
    lines = [f"# Suite {suite}", "", *_machine(content), ""]
    lines += [
        "Times are medians over rounds in which the programs took turns. `of ceiling` is the least "
        "time at the measured ceilings (FLOPs, 6 N + 6 L T d a token for training, over the best "
        "matrix product; bytes over the copy) divided by the time. `time / ours` above 1 means "
        "that gpt2_jax is faster; it is left out where results disagree.",
        "",
    ]
    for title, file in plots.items():
        lines += [f"![{title}]({file})", ""]
    for name, record in content["cases"].items():
        lines += [f"## {name}", "", _sentence(record["title"]), ""]
        lines += [*_HEAD, *_rows(record, rates), ""]
        lines += _notes(record, nominal_flops(content["cases"]))
    return "\n".join(lines).rstrip() + "\n"


def _machine(content: Mapping[str, Any]) -> list[str]:
    stamps = [record["stamp"] for record in content["cases"].values()]
    if not stamps:
        return ["Nothing is measured yet."]
    machine = stamps[-1]["machine"]
    gpu = machine["gpu"]
    words = [
        f"{machine['cores']} cores of {machine['cpu']} ({', '.join(machine['flags'])}; "
        f"{'with' if machine['amx'] else 'without'} AMX), "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB",
        *([f"{gpu['name']}, {gpu['memory_bytes'] / 2**30:.0f} GiB"] if gpu else []),
    ]
    lines = [f"- {'; '.join(words)}"]
    for who, found in stamps[-1]["versions"].items():
        lines.append(f"- {who}: " + ", ".join(f"{name} {text}" for name, text in found.items()))
    commits = sorted({record["commit"] or "unknown" for record in content["cases"].values()})
    dates = sorted({record["date"] for record in content["cases"].values()})
    lines.append(
        f"- commit {', '.join(commits)}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}"
    )
    shared = [
        {key: stamp[key] for key in stamp if key not in ("case", "rounds")} for stamp in stamps
    ]
    if any(stamp != shared[-1] for stamp in shared):
        lines.append("- some cases below come from another machine, source or versions")
    return lines


def _rows(record: Mapping[str, Any], rates: Mapping[str, float]) -> list[str]:
    rows = []
    for part, work in record["work"].items():
        floor = floor_seconds(work, record["dtype"], rates)
        if record["kind"] == "ceilings":
            floor = floor_seconds(work, part, rates)
        for name, subject in record["subjects"].items():
            summary = subject["summary"].get(part)
            if summary is None:
                continue
            seconds, ratio = summary["median"], summary["ratio"]
            cells = [
                name,
                part,
                _milliseconds(seconds),
                f"{_milliseconds(summary['p10'])} to {_milliseconds(summary['p90'])}",
                f"{work['tokens'] / seconds:,.0f}" if work["tokens"] else "",
                f"{100 * floor / seconds:.0f} %" if floor else "",
                "" if ratio is None else f"{ratio:.2f}",
            ]
            rows.append("| " + " | ".join(cells) + " |")
    return rows


def _notes(record: Mapping[str, Any], nominal: float | None) -> list[str]:
    """Returns what else is to be said: rates, agreement, failures, compile times and slopes."""
    notes = []
    if record["kind"] == "ceilings":
        notes += _rates(record)
    if record["kind"] == "train" and nominal:
        flops = record["work"]["step"]["flops"]
        shares = [
            f"{name} {100 * flops / subject['summary']['step']['median'] / nominal:.1f} %"
            for name, subject in record["subjects"].items()
            if "step" in subject["summary"]
        ]
        notes.append(f"MFU of the stated {nominal / 1e12:,.0f} TFLOP/s: {', '.join(shares)}.")
    found = record.get("agreement")
    if found:
        amiss = [name for name, passed in found["passed"].items() if not passed]
        worst = {
            name: "other counts, or no number" if value is None else f"{value:.1e}"
            for name, value in found["differences"].items()
        }
        text = ", ".join(f"{name} {value}" for name, value in [*worst.items()][1:])
        measure = "Largest relative difference" if found["tolerance"] else "Fraction that differs"
        verdict = f"DISAGREE: {', '.join(amiss)}. " if amiss else ""
        notes.append(
            f"{verdict}{measure} from the first, over {found['count']} "
            f"{found['evidence']}: {text or 'nobody to compare'} (allowed: {found['tolerance']})."
        )
    for name, subject in record["subjects"].items():
        if "failure" in subject:
            notes.append(f"FAILED: {subject['failure'].splitlines()[0]}.")
        facts = subject["facts"]
        shown = {key: value for key, value in facts.items() if key.endswith("_seconds")}
        if shown:
            text = ", ".join(f"{key[:-8].replace('_', ' ')} {v:.1f} s" for key, v in shown.items())
            notes.append(f"{name}: {text}.")
        if record["kind"] == "scaling":
            notes.append(_slopes(name, subject))
    if doubt := busy(record):
        notes.append(f"{doubt}.")
    for name, reason in record.get("left_out", {}).items():
        notes.append(f"Left out: {name}, because {reason}.")
    return [f"- {note}" for note in notes] + ([""] if notes else [])


def busy(record: Mapping[str, Any]) -> str | None:
    """Returns what other processes used while a case was measured, if that makes it doubtful."""
    used, cores = record.get("cores_used_by_others"), record["stamp"]["machine"]["cores"]
    if not used or not cores or used <= _BUSY * cores:
        return None
    return f"BUSY: other processes used {used} of {cores} cores, so times are doubtful"


def _rates(record: Mapping[str, Any]) -> list[str]:
    notes = []
    for name, subject in record["subjects"].items():
        texts = []
        for part, summary in subject["summary"].items():
            work = record["work"][part]
            if work["flops"]:
                texts.append(f"{part} {work['flops'] / summary['median'] / 1e9:,.0f} GFLOP/s")
            else:
                texts.append(f"{part} {work['bytes'] / summary['median'] / 1e9:,.1f} GB/s")
        notes.append(f"{name}: {', '.join(texts)}.")
    return notes


def _slopes(name: str, subject: Mapping[str, Any]) -> str:
    steps = slope({part: value["median"] for part, value in subject["summary"].items()})
    text = f"{name}: step time grows with exponent {_number(steps)}"
    compiled = subject["facts"].get("compile_seconds_by_part")
    if compiled:
        seconds = ", ".join(f"{part}: {value:.1f}" for part, value in compiled.items())
        text += f"; compile time with {_number(slope(compiled))} (seconds {seconds})"
    return text + "."


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
