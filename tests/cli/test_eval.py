"""`gpt2-jax eval`: its document, going on after a stop, and wrong inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt2_jax.checkpoint.load import load
from gpt2_jax.cli.main import main
from gpt2_jax.data.tokenizer import CharTokenizer
from gpt2_jax.evals.lambada import Lambada
from gpt2_jax.evals.run import evaluate
from gpt2_jax.evals.scoring import Scorer
from tests.decode.tiny import make_run

_TEXTS = ["the cat sat on the mat", "a b c", "it was late when they ate", "one two three four"]


@pytest.fixture(autouse=True)
def _quick(quick_compiles):
    pass


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
    assert found["model"] == run
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
    task, out = Lambada(Path(data)), tmp_path / "out"
    whole = evaluate(task, Scorer(loaded.params, loaded.config.model), loaded, out=out)
    log = out / "lambada_openai.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    # As if killed while it wrote the third row.
    log.write_text("".join(lines[:3]) + lines[3][:9])
    scored: list[int] = []

    class Counting(Scorer):
        def score(self, requests):
            scored.append(len(requests))
            return super().score(requests)

    shown: list[tuple[int, int]] = []
    again = evaluate(
        task,
        Counting(loaded.params, loaded.config.model),
        loaded,
        out=out,
        show=lambda done, total: shown.append((done, total)),
    )
    assert again == whole and scored == [2]
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
    for more in (["--model", other], ["--model", run, "--limit", "3"]):
        assert main([*words, *more]) == 2
        assert "another model or other examples" in capsys.readouterr().err
    assert log.read_bytes() == before
    log.write_text("not JSON\n")
    assert main([*words, "--model", run]) == 2
    assert "no log of an evaluation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tasks", "lambda_openai"), "did you mean 'lambada_openai'?"),
        (("--tasks", ""), "unknown task ''"),
        (("--tasks", "hellaswag", "--limit", "0"), "--limit must be at least 1"),
        (("--tasks", "hellaswag", "--data", "nowhere"), "can't read nowhere/hellaswag_val.jsonl"),
        (("--tasks", "hellaswag", "--data", ""), "--data is empty"),
        (("--tasks", "hellaswag", "--model", "nowhere"), "no model at nowhere"),
        (("--tasks", "lambada_openai", "--out", "/proc/none"), "can't write /proc/none"),
    ],
)
def test_wrong_inputs_are_one_line(
    run: str, data: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert main(["eval", "--model", run, "--data", data, *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and said in err


def test_a_text_longer_than_the_context_is_one_line(
    run: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps({"text": "a " + "b" * 40})
    Path(data, "lambada_test.jsonl").write_text(text, encoding="utf-8")
    assert main(["eval", "--model", run, "--data", data, "--tasks", "lambada_openai"]) == 2
    assert "more than the model's context of 32" in capsys.readouterr().err
