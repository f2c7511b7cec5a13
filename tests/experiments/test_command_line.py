"""The command: what is wrong with it is one line, with status 2, before anything is measured."""

import re
import sys

import pytest

from experiments.benchmarks import driver, machine
from experiments.benchmarks.__main__ import main

_TINY = ["--suite", "cpu", "--size", "tiny"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "tpu"], "invalid choice: 'tpu'"),
        ([], "--suite"),
        ([*_TINY, "--rounds", "0"], "--rounds must be at least 1, not 0"),
        ([*_TINY, "--round", "many"], "invalid int value"),
        ([*_TINY, "--minutes", "0"], "--minutes must be greater than 0, not 0"),
        ([*_TINY, "--peers", "none"], "--size tiny needs --out DIR"),
        ([*_TINY, "--peers", "none", "--out", "README.md"], "--out README.md: cannot be written"),
        ([*_TINY, "--only", "load,lode"], "no case lode; there are ceilings, train_124m_float32"),
        ([*_TINY, "--only", ","], "no case ','"),
        ([*_TINY, "--peers", "no/python"], "--peers no/python is no interpreter: make it with"),
        ([*_TINY, "--peers", sys.executable], "lacks torch, transformers"),
        ([*_TINY, "--peers", "none", "--wheels", "docs"], "--wheels docs has no wheels: get them"),
        ([*_TINY, "--report", "--out", "docs"], "--report: there are no results in docs/cpu.json"),
    ],
)
def test_wrong_flags_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err


def test_list_names_the_cases(capsys):
    assert main([*_TINY, "--list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ceilings ")
    assert re.search(r"^score +scoring .* float32; beside transformers$", out, re.M)


@pytest.mark.parametrize("words", [[*_TINY, "--list"], ["--suite", "gpu", "--list"], ["--help"]])
def test_list_and_help_say_what_needs_what(words, capsys):
    if words == ["--help"]:
        with pytest.raises(SystemExit):
            main(words)
    else:
        assert main(words) == 0
    out = capsys.readouterr().out
    assert "an NVIDIA GPU" in out and "make compare-env" in out and "--peers none" in out


def _driven(tmp_path, monkeypatch, answers):
    """Runs one case without processes."""
    monkeypatch.setattr(driver, "measure", lambda case, *rest, **options: answers(case))
    words = [*_TINY, "--only", "load", "--peers", "none", "--out", str(tmp_path)]
    return main(words)


def _record(case, **subject):
    summary = {"batch": {"median": 1.0, "p10": 1.0, "p90": 1.0, "ratio": 1.0}}
    ours = {"facts": {}, "seconds": {"batch": [1.0]}, "summary": summary, **subject}
    return {
        "title": case.title,
        "kind": case.kind,
        "dtype": case.dtype,
        "work": {part: work._asdict() for part, work in case.parts.items()},
        "subjects": {"gpt2_jax": ours},
    }


def test_results_and_report_are_written_and_not_measured_again(tmp_path, monkeypatch, capsys):
    measured = []

    def answers(case):
        measured.append([subject.name for subject in case.subjects])
        return _record(case)

    assert _driven(tmp_path, monkeypatch, answers) == 0
    assert _driven(tmp_path, monkeypatch, answers) == 0
    assert measured == [["gpt2_jax"]]  # torch is left out
    err = capsys.readouterr().err
    assert "torch eager is left out, because --peers is none" in err
    assert "load: measured already" in err
    assert err.count("load: making what it reads, then gpt2_jax\n") == 1
    report = (tmp_path / "cpu.md").read_text("utf-8")
    assert "Left out: torch eager, because --peers is none." in report


@pytest.mark.parametrize(("used", "said"), [(0.9, True), (0.0, False)])
def test_a_busy_machine_is_said_on_the_terminal_as_in_the_report(
    tmp_path, monkeypatch, capsys, used, said
):
    monkeypatch.setattr(driver, "_cores_used", lambda others, began: used)
    found = {**machine.describe(), "cores": 2}
    monkeypatch.setattr(machine, "describe", lambda: found)
    assert _driven(tmp_path, monkeypatch, _record) == 0
    line = "BUSY: other processes used 0.9 of 2 cores, so times are doubtful"
    assert (f"load: {line}\n" in capsys.readouterr().err) == said
    assert (line in (tmp_path / "cpu.md").read_text("utf-8")) == said


def test_a_failed_worker_gives_status_1(tmp_path, monkeypatch):
    assert _driven(tmp_path, monkeypatch, lambda case: _record(case, failure="it crashed")) == 1


def test_a_disagreement_gives_status_1(tmp_path, monkeypatch):
    found = {"evidence": "values", "count": 1, "tolerance": 0, "differences": {"gpt2_jax": 1.0}}
    found["passed"] = {"gpt2_jax": False}
    status = _driven(tmp_path, monkeypatch, lambda case: {**_record(case), "agreement": found})
    assert status == 1


def test_no_case_is_begun_after_the_time(tmp_path, monkeypatch, capsys):
    words = [*_TINY, "--only", "load,score", "--peers", "none", "--out", str(tmp_path)]
    measured = []
    monkeypatch.setattr(driver, "measure", lambda case, *rest, **options: measured.append(case))
    assert main([*words, "--minutes", "1e-9"]) == 1
    assert not measured
    assert "score: not begun after 1e-09 minutes; run it again" in capsys.readouterr().err
