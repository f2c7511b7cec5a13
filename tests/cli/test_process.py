"""Tests the output of libraries, and how SIGTERM and Ctrl-C end a verb."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.cli import interrupts, process
from gpt2_jax.cli import main as cli
from gpt2_jax.parallel.accelerators import only_cpus

# A command of its own whose verb `sample` is what RUN defines as `run`.
_COMMAND = """
import os, signal, sys, types
def add_arguments(parser): parser.add_argument("--json", action="store_true")
{run}
sys.modules["gpt2_jax.cli.sample"] = types.SimpleNamespace(
    HELP="", EXAMPLES="", add_arguments=add_arguments, run=run)
from gpt2_jax.cli.main import console
sys.argv = ["gpt2-jax", "sample", *sys.argv[1:]]
console()
"""


def _start(run: str, *flags: str, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND.format(run=run), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


_CHATTER = """
def run(args):
    os.write(1, b"chatter\\n")
    print('{"a": 1}')
    os.write(1, b"more\\n")
    return 0
"""


def test_with_json_standard_output_has_the_document_alone() -> None:
    out, errors = _start(_CHATTER, "--json").communicate(timeout=60)
    assert (json.loads(out), errors) == ({"a": 1}, "chatter\nmore\n")
    out, errors = _start(_CHATTER).communicate(timeout=60)
    assert (sorted(out.splitlines()), errors) == (["chatter", "more", '{"a": 1}'], "")


def test_with_json_a_reader_that_leaves_early_is_no_error() -> None:
    running = _start("def run(args):\n    while True: print('x' * 100)", "--json")
    assert running.stdout is not None and running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(timeout=60) == 141
    running.stderr.close()


def test_a_captured_standard_output_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with process.only_python_prints():
        assert sys.stdout is before
        print("here")
    assert capsys.readouterr().out == "here\n"


def test_what_is_true_of_standard_output_before_is_true_after() -> None:
    code = """
import os, sys
from gpt2_jax.cli.process import only_python_prints
before = sys.stdout
try:
    with only_python_prints():
        raise KeyError
except KeyError:
    assert sys.stdout is before
os.write(1, b"to the end")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("to the end", "")


_WAITS = """
def run(args):
    try:
        print("ready", flush=True)
        signal.pause()
    finally:
        {at_last}
"""


@pytest.mark.parametrize(
    ("signals", "at_last", "line"),
    [(1, "pass", "terminated\n"), (2, "print('ready', flush=True); signal.pause()", "")],
)
def test_sigterm_ends_a_verb_with_a_line_and_the_second_at_once(
    signals: int, at_last: str, line: str
) -> None:
    running = _start(_WAITS.format(at_last=at_last))
    assert running.stdout is not None
    for _ in range(signals):
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert errors == line
    assert running.returncode == (143 if signals == 1 else -signal.SIGTERM)


def test_a_sigterm_that_comes_in_a_callback_ends_the_verb_too() -> None:
    run = """
class Callback:
    def __del__(self): os.kill(os.getpid(), signal.SIGTERM)
def run(args):
    Callback()
    return 0
"""
    running = _start(run)
    assert running.communicate(timeout=60) == ("", "")
    assert running.returncode == -signal.SIGTERM


def test_an_ignored_sigterm_stays_ignored() -> None:
    run = "def run(args):\n    os.kill(os.getpid(), signal.SIGTERM)\n    return 7"
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)}
    running = _start(run, **ignore)
    assert running.communicate(timeout=60) == ("", "") and running.returncode == 7


@pytest.mark.parametrize(("name", "handled"), [("train", False), ("plan", False), ("eval", True)])
def test_every_verb_but_those_with_an_answer_of_their_own_is_ended(
    monkeypatch: pytest.MonkeyPatch, name: str, handled: bool
) -> None:
    found = []

    def run(args: Any) -> int:
        found.append(signal.getsignal(signal.SIGTERM))
        return 0

    verb = types.SimpleNamespace(HELP="", EXAMPLES="", add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, f"gpt2_jax.cli.{name}", verb)  # type: ignore[arg-type]
    assert cli.main([name]) == 0
    assert callable(found[0]) == handled
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_jax_is_kept_from_libtpu_only_where_it_can_find_nothing(tmp_path: Path) -> None:
    code = (
        "import os; from gpt2_jax.cli.process import quiet_libraries; quiet_libraries(); "
        "print(os.environ.get('JAX_PLATFORMS'))"
    )
    (tmp_path / "libtpu.py").touch()
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_PLATFORM", "TPU_"))
    }
    nothing = "cpu" if only_cpus(clean) else "None"
    for said, chosen in (({}, nothing), ({"JAX_PLATFORMS": "tpu"}, "tpu")):
        path = os.pathsep.join([str(tmp_path), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=clean | said | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == f"{chosen}\n", done.stderr


@pytest.mark.parametrize("module", ["jax/__init__.py", "difflib.py"])  # late, and early
def test_ctrl_c_during_imports_ends_the_command_at_once(tmp_path, module):
    importing = tmp_path / "importing"
    slow = tmp_path / "modules" / module
    slow.parent.mkdir(parents=True)
    slow.write_text(f"import time\nopen({str(importing)!r}, 'w').close()\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "gpt2_jax", "sample", "--model", str(tmp_path / "none")]
    paths = os.pathsep.join([str(tmp_path / "modules"), str(Path(__file__).parents[2])])
    # What a shell starts in the background ignores SIGINT, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    signal.signal(signal.SIGINT, before)
    while process.poll() is None and not importing.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_a_signal_to_the_process_and_its_group_interrupts_once() -> None:
    answer = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    running = _start(_WAITS.format(at_last="import time; time.sleep(0.3)"), **answer)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    for _ in range(2):
        running.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (130, "interrupted\n")


def test_ctrl_c_in_a_callback_of_the_garbage_collector_ends_the_verb_too() -> None:
    run = """
import gc, time
def interrupt(phase, info):
    gc.callbacks.remove(interrupt)
    signal.raise_signal(signal.SIGINT)
def run(args):
    gc.callbacks.append(interrupt)
    gc.collect()
    time.sleep(60)
    return 0
"""
    answer = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    running = _start(run, **answer)
    assert running.communicate(timeout=30) == ("", "interrupted\n")
    assert running.returncode == 130


def test_the_handler_of_ctrl_c_is_put_back_and_another_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler in (signal.default_int_handler, signal.SIG_IGN, interrupts.Interrupts()):
            signal.signal(signal.SIGINT, handler)
            with interrupts.interrupts_raise():
                handles = isinstance(signal.getsignal(signal.SIGINT), interrupts.Interrupts)
                assert handles == (handler is not signal.SIG_IGN)
                if handles:
                    with pytest.raises(KeyboardInterrupt):
                        signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
