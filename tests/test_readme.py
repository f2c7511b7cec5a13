"""Tests that the Python of the README runs, and that its command lines parse.

Both of the page on serving are run, too, against a server.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.cli import sample
from gpt2_jax.cli.main import VERBS
from gpt2_jax.cli.verb import parse
from gpt2_jax.config import load_config
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document
from gpt2_jax.tokenizers.tokenizer import make_tokenizer
from tests.inference.tiny import make_run, tiny_config
from tests.serve.serving import Client, serving, tiny_model

_ROOT = Path(__file__).parents[1]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_BLOCKS = _FENCED.findall(_README)
_SERVING_BLOCKS = _FENCED.findall((_ROOT / "docs" / "serving.md").read_text(encoding="utf-8"))
_RUN = "runs/quickstart"
_QUICKSTART = _ROOT / "configs" / "quickstart.py"


def _python_blocks(blocks: list[tuple[str, str]] = _BLOCKS) -> list[str]:
    return [text for kind, text in blocks if kind == "python" and "gpt2_jax.load" in text]


def _commands() -> list[list[str]]:
    """Returns the words of every `gpt2-jax` command in a fenced block, up to a pipe or redirect."""
    commands = []
    for kind, text in _BLOCKS:
        if kind == "python":
            continue
        for line in text.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if not re.match(r"(\S*/)?gpt2-jax(\s|$)", line):
                continue
            words = shlex.split(line, comments=True)
            ends = [i for i, word in enumerate(words) if re.match(r"[|;&<>]|2>", word)]
            commands.append(words[1 : ends[0] if ends else len(words)])
    return commands


def test_the_readme_shows_the_python_api_and_the_command_line() -> None:
    assert _python_blocks(), "README.md has no ```python block with gpt2_jax.load"
    assert _commands(), "README.md has no gpt2-jax command line in a fenced block"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has the context and tokenizer of the quickstart, but is narrower."""
    quickstart = load_config(_QUICKSTART)
    tokenizer = make_tokenizer(quickstart.data.tokenizer)
    length = quickstart.model.context_length
    config = tiny_config(tokenizer, context_length=length, num_layers=1, scan_unroll=1)
    make_run(tmp_path / _RUN, config, tokenizer)
    # The blocks name the run by a path from the repository's root.
    monkeypatch.chdir(tmp_path)
    for text in [*_python_blocks(), *_python_blocks(_SERVING_BLOCKS)]:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.slow
def test_the_training_from_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs it with quickstart's own config, on a short text."""
    (text,) = [text for kind, text in _BLOCKS if kind == "python" and "gpt2_jax.train(" in text]
    (tmp_path / "configs").symlink_to(_ROOT / "configs")
    documents = [Document("a", "def one():\n    return 1\n" * 99)]
    prepare(documents, "byte", tmp_path / load_config(_QUICKSTART).data.path)
    monkeypatch.chdir(tmp_path)
    exec(compile(text.replace("20", "2").replace("=5", "=1"), "README.md", "exec"), {})
    step, loss = capsys.readouterr().out.split()
    assert step == "2" and 0 < float(loss) < 5.5


def test_the_command_lines_of_the_readme_parse() -> None:
    for words in _commands():
        if words[0].startswith("-"):
            assert words in (["--help"], ["--version"]), words
            continue
        assert words[0] in VERBS, words
        verb = importlib.import_module(f"gpt2_jax.cli.{words[0]}")
        if "--help" in words:
            continue
        args = parse(words[0], verb, words[1:])
        if words[0] == "sample":
            sample._check(args)  # flags that cannot be combined
        config = getattr(args, "config", None)
        if config and config.startswith("configs/"):
            # Overrides are parsed by type and checked together.
            load_config(_ROOT / config, args.config_overrides)


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    """A server whose model is named tiny, and has room for the examples."""
    with serving(tiny_model(context_length=64)) as client:
        yield client


def _for(server: Client, text: str) -> str:
    """Returns an example of how to ask a server, with the model and the port of this one."""
    assert "http://localhost:8000/" in text and "quickstart" in text
    return text.replace("localhost:8000", f"127.0.0.1:{server.port}").replace("quickstart", "tiny")


def _curl_commands() -> list[str]:
    blocks = [text.replace("\\\n", " ") for _, text in [*_BLOCKS, *_SERVING_BLOCKS]]
    return [line for text in blocks for line in text.splitlines() if line.startswith("curl ")]


def _as_curl_sends_it(server: Client, words: list[str]) -> Any:
    """Sends what a command with one URL, headers and a body says."""
    curl, url, *flags = words
    assert curl == "curl" and flags[::2] == ["-H", "-d"]
    name, _, value = flags[1].partition(": ")
    path = url.removeprefix(f"http://127.0.0.1:{server.port}")
    reply = server.send("POST", path, flags[3].encode(), **{name: value})
    assert reply.status == 200, reply
    return reply.json


@pytest.mark.slow
def test_the_curl_commands_run(server: Client) -> None:
    commands = _curl_commands()
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(_for(server, command))
        answer = _as_curl_sends_it(server, words)
        if "completions" in command:
            assert len(answer["choices"][0]["text"].encode()) > 20
            assert answer["seed"] == 7
        else:
            assert [score["logprob"] < 0 for score in answer["scores"]] == [True, True]
        if shutil.which("curl"):
            done = subprocess.run([words[0], "-s", *words[1:]], capture_output=True, timeout=60)
            for part in ("choices", "scores"):
                assert json.loads(done.stdout).get(part) == answer.get(part), done


@pytest.mark.openai
def test_the_python_that_asks_a_server_runs(
    server: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = [text for kind, text in _BLOCKS if kind == "python" and "import openai" in text]
    more = [text for kind, text in _SERVING_BLOCKS if "import openai" in text]
    assert (len(blocks), len(more)) == (1, 1)
    for text in blocks:
        exec(compile(_for(server, text), "README.md", "exec"), {"__name__": "__main__"})
        fields = {"prompt": "def ", "max_tokens": 40, "seed": 7}
        assert capsys.readouterr().out == server.complete(**fields)["choices"][0]["text"]
    for text in more:
        exec(compile(_for(server, text), "serving.md", "exec"), {"__name__": "__main__"})
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["0", "1", "2", "3"]
