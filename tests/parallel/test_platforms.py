"""A platform that is not there is one line with status 2 in every verb that uses JAX."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.parallel import platforms
from tests.inference.tiny import make_run

_CODE = """
import os
import sys
import jax
from gpt2_jax.cli.main import main
run, config, out = sys.argv[1:]
verbs = {
    "sample": ("--model", run), "eval": ("--model", run, "--text", config),
    "convert": ("--model", run, "--to", "hf", "--out", out), "doctor": ("--model", run),
    "train": ("--config", config, "--dry_run"),
}
for number, (verb, flags) in enumerate(verbs.items()):
    # Every name in one verb and every verb with one name, the last as the environment has it.
    for name in ("cuda", "cpu,cqu", "cqu") if number == 0 else ("cqu",):
        os.environ["JAX_PLATFORMS"] = name
        jax.config.update("jax_platforms", name)
        print(verb, name, main([verb, *flags]), flush=True)
"""


@pytest.mark.slow
def test_every_verb_refuses_a_platform_that_is_not_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    config = tmp_path / "config.py"
    config.write_text(
        "from gpt2_jax.config import default\n"
        "def get_config():\n    c = default()\n    c.model.vocab_size = 61\n    return c\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(run), str(config), str(tmp_path / "out")],
        env=os.environ | {"JAX_PLATFORMS": "cqu"},
        capture_output=True,
        text=True,
    )
    outcomes = ["sample cuda 2", "sample cpu,cqu 2", "sample cqu 2"]
    outcomes += [f"{verb} cqu 2" for verb in ("eval", "convert", "doctor", "train")]
    assert done.stdout.splitlines() == outcomes, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(outcomes), done.stderr
    for line, outcome in zip(lines, outcomes, strict=True):
        assert line.startswith(f"error: JAX_PLATFORMS={outcome.split()[1]} in the environment")
        assert "set it to what is available: cpu" in line
    assert not (tmp_path / "out").exists()


def test_only_what_concerns_the_platform_is_blamed_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    platforms.check_platforms()  # the devices of these tests are there
    named = jax.config.values["jax_platforms"]
    monkeypatch.setattr(platforms, "_available", lambda: "cpu")

    def fail_with(message: str) -> None:
        def devices() -> None:
            raise RuntimeError(message)

        monkeypatch.setattr(jax, "devices", devices)

    fail_with("Unable to initialize backend 'cpu': DEADLINE_EXCEEDED: process 1 is not there")
    with pytest.raises(RuntimeError, match="DEADLINE_EXCEEDED"):
        platforms.check_platforms()
    fail_with("Unable to initialize backend 'cpu': NOT_FOUND: nothing.\n(set JAX_PLATFORMS='')")
    monkeypatch.setenv("JAX_PLATFORMS", named)
    with pytest.raises(UserError, match=f"^JAX_PLATFORMS={named} in the environment .*NOT_FOUND"):
        platforms.check_platforms()
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(UserError, match=f"^the option jax_platforms={named} of jax.config names"):
        platforms.check_platforms()
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "0")
    with pytest.raises(UserError, match=r"^JAX_NUM_CPU_DEVICES=0 in the environment must be at"):
        platforms.check_platforms()
