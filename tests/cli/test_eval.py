"""Tests `gpt2-jax eval`: its document, resuming after an interruption, and wrong inputs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.errors import UserError
from gpt2_jax.evals.lambada import Lambada
from gpt2_jax.evals.run import Log, evaluate, header_of, model_digest
from gpt2_jax.evals.task import Setting
from gpt2_jax.formats.load import load
from gpt2_jax.inference.scoring import Scorer
from gpt2_jax.tokenizers.char import CharTokenizer
from tests.inference.tiny import make_run

_TEXTS = ["the cat sat on the mat", "a b c", "it was late when they ate", "one two three four"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("eval") / "run"))


@pytest.fixture
def data(tmp_path: Path) -> str:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [json.dumps({"text": text}) for text in _TEXTS]
    (folder / "lambada_test.jsonl").write_text("\n".join(lines), encoding="utf-8")
    swag = {"activity_label": "x", "ctx_a": "a", "ctx_b": "b", "endings": ["c", "dd"], "label": 0}
    (folder / "hellaswag_val.jsonl").write_text(json.dumps(swag), encoding="utf-8")
    return str(folder)


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["eval", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_document_has_every_task_with_its_count(
    run: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", run, "--data", data, "--tasks", "lambada_openai, hellaswag")
    found = _json(capsys, *words)
    assert found["model"] == run and found["step"] == 2 and found["limit"] is None
    assert list(found["protocols"]) == ["lambada_openai", "hellaswag"] and found["not_run"] == []
    assert list(found["tasks"]) == ["lambada_openai", "hellaswag"]
    lambada = found["tasks"]["lambada_openai"]
    assert list(lambada) == ["acc", "acc_stderr", "perplexity", "perplexity_stderr", "count"]
    assert lambada["count"] == 4 and lambada["perplexity"] > 1
    swag = found["tasks"]["hellaswag"]
    assert swag["count"] == 1 and swag["acc_stderr"] is None and swag["acc"] in (0, 1)
    assert _json(capsys, *words, "--limit", "2")["tasks"]["lambada_openai"]["count"] == 2
    assert main(["eval", *words]) == 0
    out, err = capsys.readouterr()
    assert "lambada_openai    perplexity" in out and "hellaswag: lm-eval's" in out
    assert "lambada_openai: 4 of 4 examples" in err


def test_a_stopped_evaluation_goes_on(run: str, data: str, tmp_path: Path) -> None:
    loaded = load(run)
    task, out = Lambada(Setting(Path(data), loaded.tokenizer, 32)), tmp_path / "out"
    config = loaded.config
    scorer = Scorer(loaded.params, config.model, config.compute)

    def opened() -> Log:
        return Log(out, task.name, header_of(task, model_digest(loaded.params, config)))

    with contextlib.closing(opened()) as rows:
        whole = evaluate(task, scorer, log=rows)
    log = out / "lambada_openai.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    # As if killed while it wrote the third row.
    log.write_text("".join(lines[:3]) + lines[3][:9])
    scored: list[int] = []

    class Counting(Scorer):
        def score(self, requests, excluded=()):
            scored.append(len(requests))
            return super().score(requests, excluded)

    shown: list[tuple[int, int]] = []
    counting = Counting(loaded.params, config.model, config.compute)
    with contextlib.closing(opened()) as rows:
        again = evaluate(task, counting, log=rows, show=lambda *counts: shown.append(counts))
    assert again == pytest.approx(whole, rel=1e-5) and scored == [2]
    assert shown == [(2, 4), (3, 4), (4, 4)]
    rows = {json.loads(line)["index"] for line in log.read_text().splitlines()[1:]}
    assert rows == {0, 1, 2, 3}


def test_results_of_another_model_or_other_examples_are_left_alone(
    run: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--data", data, "--tasks", "lambada_openai", "--out", str(tmp_path / "out")]
    assert main([*words, "--model", run]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["tasks"]["lambada_openai"]["count"] == 4
    log = tmp_path / "out" / "lambada_openai.jsonl"
    before = log.read_bytes()
    other = str(
        make_run(tmp_path / "other", tokenizer=CharTokenizer("".join(sorted(set(str(_TEXTS))))))
    )
    capsys.readouterr()
    assert main([*words, "--model", other]) == 2
    assert "results of another model: remove it" in capsys.readouterr().err
    file = Path(data) / "lambada_test.jsonl"
    texts = file.read_bytes()
    file.write_bytes(texts + b"\n")
    assert main([*words, "--model", run]) == 2
    assert "results of other data: remove it" in capsys.readouterr().err
    file.write_bytes(texts)
    assert log.read_bytes() == before
    for content, message in (
        (b"no end of line", "is not the log of an evaluation"),
        (b'{"index": 1}\n', "is not the log of an evaluation"),
        (before + b"{}\n", "is not the log of an evaluation"),
        (before + b"not JSON\n", "line 6 is not JSON: remove that line"),
        (before + b"[" * 100_000 + b"\n", "line 6 is not JSON: remove that line"),
    ):
        log.write_bytes(content)
        assert main([*words, "--model", run]) == 2
        assert message in capsys.readouterr().err
        assert log.read_bytes() == content


def test_a_log_of_another_protocol_is_left_alone(run: str, data: str, tmp_path: Path) -> None:
    loaded = load(run)
    task = Lambada(Setting(Path(data), loaded.tokenizer, 32))
    Log(tmp_path, task.name, header_of(task, "model")).close()
    task.excluded = (3,)
    with pytest.raises(UserError, match="results of another protocol"):
        Log(tmp_path, task.name, header_of(task, "model"))


def test_a_larger_limit_goes_on_and_results_of_several_commands_add_up(
    run: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("--model", run, "--data", data, "--out", str(out))
    for limit, lines in ((2, 3), (3, 4), (1, 4)):
        found = _json(capsys, *words, "--tasks", "lambada_openai", "--limit", str(limit))
        assert found["tasks"]["lambada_openai"]["count"] == limit
        assert len((out / "lambada_openai.jsonl").read_text().splitlines()) == lines
    _json(capsys, *words, "--tasks", "hellaswag")
    results = json.loads((out / "results.json").read_text())
    assert list(results["tasks"]) == ["lambada_openai", "hellaswag"]
    (out / "results.json").unlink()
    (out / "results.json").mkdir()
    assert main(["eval", *words, "--tasks", "hellaswag"]) == 2
    assert "results.json: Is a directory" in capsys.readouterr().err


@pytest.mark.slow
def test_a_disk_without_room_loses_no_row(run: str, data: str, tmp_path: Path) -> None:
    """Runs in a process whose files may not grow beyond the size of the first results."""
    words = ["--model", run, "--data", data, "--tasks", "lambada_openai", "--out", str(tmp_path)]
    assert main(["eval", *words, "--limit", "2"]) == 0
    log = tmp_path / "lambada_openai.jsonl"
    before = log.read_bytes()
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " + (
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 10},) * 2); "
    )
    code = limit + f"from gpt2_jax.cli.main import main; raise SystemExit(main({['eval', *words]}))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200
    )
    assert found.returncode == 78, found.stderr
    assert (
        found.stderr.strip().splitlines()[-1].startswith(f"error: cannot write {log}: File too l")
    )
    assert log.read_bytes().startswith(before)
    assert main(["eval", *words]) == 0
    assert len(log.read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tasks", "lambda_openai"), "did you mean 'lambada_openai'?"),
        (("--tasks", ""), "no task was named"),
        (("--tasks", ","), "no task was named; the tasks are: lambada_openai"),
        (("--tasks", "hellaswag", "--stride", "0"), "--stride must be at least 1"),
        (("--tasks", "cbt_cn"), "from CBTest.tgz, folder data, or run `gpt2-jax eval --download`"),
        (("--tasks", "enwik8"), "which is missing: take it from mattmahoney.net"),
        (("--tasks", "gpt2_paper", "--data", "nowhere"), "nowhere has none of the files of gpt2_"),
        (("--tasks", "cbt_ne", "--download"), "pip install 'gpt2_jax[eval]'"),
        (("--tasks", "hellaswag", "--limit", "0"), "--limit must be at least 1"),
        (("--tasks", "hellaswag", "--data", "nowhere"), "needs nowhere/hellaswag_val.jsonl"),
        (("--tasks", "hellaswag", "--data", ""), "--data is empty"),
        (("--tasks", "hellaswag", "--model", "nowhere"), "no model at nowhere"),
        (("--tasks", "lambada_openai", "--out", "/proc/none"), "cannot write /proc/none"),
        (("--tasks", "lambada_openai", "--out", __file__), "is a file: name a folder"),
    ],
)
def test_wrong_inputs_are_one_line(
    run: str,
    data: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    pairs = [pair for pair in (("--model", run), ("--data", data)) if pair[0] not in words]
    assert main(["eval", *sum(pairs, ()), *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and message in err


def test_a_text_longer_than_the_context_is_one_line(
    run: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps({"text": "a " + "b" * 40})
    Path(data, "lambada_test.jsonl").write_text(text, encoding="utf-8")
    assert main(["eval", "--model", run, "--data", data, "--tasks", "lambada_openai"]) == 2
    assert "more than the model's context of 32" in capsys.readouterr().err


# The paper's table.


def test_the_papers_table_runs_what_there_is_data_for(
    run: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(data)
    lambada = [json.dumps({"text": text}) + "\n" for text in ("a b c", "one two")]
    (folder / "lambada_test.jsonl").write_text("".join(lambada), encoding="utf-8")
    (folder / "text8").write_text("anarchism originated as a term of abuse " * 30)
    (folder / "ptb.test.txt").write_text(" no it was n't \n", encoding="utf-8")
    assert main(["eval", "--model", run, "--data", data, "--tasks", "gpt2_paper"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:18].strip(): line.split() for line in lines if "   " in line}
    paper = next(line for line in lines if line.startswith("PTB (PPL)"))
    assert paper.split()[-4:] == ["65.85", "47.33", "40.31", "35.76"]
    assert float(paper.split()[3]) == pytest.approx(float(_value(lines, "ptb")), rel=1e-2)
    assert "text8 (BPC)" in rows and "CBT-CN (ACC)" not in rows
    text = "\n".join(lines)
    assert "Not run because their data is missing" in text
    assert "cbt_cn: cbtest_CN_valid_2000ex.txt" in text
    assert "have not run it on the" in text
    assert "ptb: the whole file as one text, windows of 32 tokens" in text


def _value(lines: list[str], task: str) -> str:
    return next(line for line in lines if line.startswith(f"{task}   ")).split()[2]


def test_a_text_of_ones_own(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("one two three\nfour  " * 30, encoding="utf-8")
    found = _json(capsys, "--model", run, "--text", str(path), "--stride", "8")
    numbers = found["tasks"]["mine.txt"]
    size, words = path.stat().st_size, 4 * 30
    nats = numbers["bits_per_byte"] * math.log(2) * size
    assert numbers["word_perplexity"] == pytest.approx(math.exp(nats / words))
    assert numbers["token_perplexity"] == pytest.approx(math.exp(nats / size))
    assert numbers["count"] == 1 + math.ceil((size - 32) / 8)
    assert main(["eval", "--model", run]) == 2
    assert "pass --tasks A,B with --data DIR, --text FILE, or --valid" in capsys.readouterr().err
    assert main(["eval", "--model", run, "--tasks", "ptb"]) == 2
    assert "--data DIR" in capsys.readouterr().err
    for other in (tmp_path / "more" / "mine.txt", tmp_path / "ptb"):
        other.parent.mkdir(exist_ok=True)
        other.write_text("one")
        assert main(["eval", "--model", run, "--text", str(path), str(other)]) == 2
        assert f"the name {other.name} is taken by another text" in capsys.readouterr().err
    assert main(["eval", "--model", run, "--text", "nowhere.txt"]) == 2
    assert "--text nowhere.txt is not a file" in capsys.readouterr().err


# Data from the hub, of which the tests have a stand-in.


def test_downloads_write_the_files_that_are_missing(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    rows = {
        "cam-cst/cbt": [
            {
                "sentences": ["He ran .", "She sat ."],
                "question": "The XXXXX came .",
                "answer": "dog",
                "options": ["cat", "dog"],
            }
        ]
        * 2,
        "Salesforce/wikitext": [{"text": ""}, {"text": " = A = \n"}, {"text": " b . \n"}],
        "EleutherAI/lambada_openai": [{"text": "a b", "more": 1}],
    }

    def load_dataset(dataset: str, config: str | None, *, split: str) -> list[dict]:
        asked.append((dataset, config, split))
        return rows[dataset]

    stand_in = types.ModuleType("datasets")
    stand_in.load_dataset = load_dataset  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    folder = tmp_path / "data"
    words = ("--model", run, "--data", str(folder), "--download")
    tasks = "cbt_ne,wikitext2,lambada_gpt2,lambada_openai"
    found = _json(capsys, *words, "--tasks", tasks)["tasks"]
    assert asked == [
        ("cam-cst/cbt", "NE", "validation"),
        ("Salesforce/wikitext", "wikitext-2-v1", "test"),
        ("EleutherAI/lambada_openai", "default", "test"),
    ]
    assert found["cbt_ne"]["count"] == 2 and found["lambada_gpt2"]["count"] == 1
    wiki = (folder / "wikitext-2" / "wiki.test.tokens").read_text()
    assert wiki == " \n = A = \n b . \n"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["eval", *words, "--tasks", tasks, "--limit", "1"]) == 0
    assert len(asked) == 3
    assert main(["eval", *words, "--tasks", "hellaswag"]) == 2
    assert "cannot download Rowan/hellaswag" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
