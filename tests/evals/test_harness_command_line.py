"""Tests lm-eval's command line with our model: its tasks, its mistakes, and lm-eval missing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.evals import harness
from gpt2_jax.evals.harness import GPT2JaxLM
from gpt2_jax.inference.scoring import windows
from tests.evals.plain_forwards import EOT, LENGTH, needs_lm_eval, plain, plain_greedy

_ROOT = Path(__file__).parents[2]
_TASKS = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{c}}"
doc_to_target: "{{a}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "words": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q}}"
metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]
""",
    "ends": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{t}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
}


@needs_lm_eval
def test_the_command_line_runs_every_kind_of_task(run: Path, tmp_path: Path) -> None:
    questions = ["the sky is", "snow is", "grass is often", "x" * 60]
    choices = [" blue", " white", " green", " so"]
    docs = []
    for question in questions:
        ids = question.encode()
        text = bytes(plain_greedy([*ids][-31:], 6)).decode("utf-8", errors="replace")
        best = max(range(4), key=lambda i: plain(ids, choices[i].encode())[0])
        docs.append({"q": question, "c": choices, "a": best, "t": text.partition("\n")[0]})
    docs[-1] |= {"a": (docs[-1]["a"] + 1) % 4, "t": "something else"}
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    head = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/docs.jsonl}}}}\n"
    for name, text in _TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\ntest_split: test\n{head}{text}")
    offline = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    quick = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gpt2_jax.evals.harness", "--model", "gpt2_jax"),
            *("--model_args", f"model={run}", "--include_path", str(tmp_path)),
            *("--tasks", ",".join(_TASKS), "--output_path", str(tmp_path / "out.json")),
        ],
        cwd=_ROOT,
        env=os.environ | offline | quick,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("out*.json")
    found = json.loads(written.read_text())
    assert found["results"]["choice"]["acc,none"] == 0.75
    assert found["results"]["ends"]["exact_match,none"] == 0.75
    nats = -sum(
        plain(one.context, one.continuations[0])[0]
        for question in questions
        for one in windows([*question.encode()], EOT, LENGTH, LENGTH)
    )
    bits = nats / np.log(2) / sum(map(len, questions))
    assert found["results"]["words"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-5)
    assert found["config"]["model_step"] == 2
    assert "|choice|" in done.stdout


@needs_lm_eval
def test_mistakes_on_the_command_line_are_one_line_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command_line = importlib.import_module("lm_eval.__main__")
    monkeypatch.setattr(command_line, "cli_evaluate", lambda: GPT2JaxLM("/nowhere/at/all"))
    monkeypatch.setattr(harness, "keep_freed_memory", lambda: None)
    assert harness.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no model at /nowhere/at/all") and error.count("\n") == 1


@pytest.mark.slow
def test_without_lm_eval_its_extra_is_named_and_nothing_else_breaks() -> None:
    code = """
import sys
sys.modules["lm_eval"] = None
from gpt2_jax.errors import UserError
from gpt2_jax.evals import harness
print(harness.main())
try:
    harness.GPT2JaxLM("runs/none")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    status, error = done.stdout.splitlines()
    assert status == "2" and "pip install 'gpt2_jax[eval]'" in error
    assert done.stderr.count("\n") == 1 and error in done.stderr
