"""A tiny run of the command, in this process or in others, for tests that stop and resume it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.cli.main import main
from gpt2_jax.config import from_dict, load_config
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.prepare.corpora import Document
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state, without_params

CONFIG = """
from gpt2_jax.config import default

def get_config():
    c = default()
    c.model.num_layers = 2
    c.model.num_heads = 4
    c.model.d_model = 32
    c.model.context_length = 16
    c.model.vocab_size = 257
    c.model.vocab_multiple = 16
    c.compute.dtype = "float32"
    c.model.dropout = 0.1
    c.compute.loss_chunk = 8
    c.data.path = {data!r}
    c.data.tokenizer = "byte"
    c.schedule.learning_rate = 3e-3
    c.schedule.min_learning_rate = 3e-4
    c.schedule.warmup_steps = 3
    c.train.batch_size = 8
    c.train.total_steps = 20
    c.checkpoint.every = 8
    c.eval.every = 0
    c.eval.sample_tokens = 12
    c.log.every = 1
    c.log.tensorboard = False
    return c
"""


def once(folder, make):
    """Makes a folder, or waits until another worker of pytest-xdist has made it."""
    done = folder.with_suffix(".done")
    try:
        folder.with_suffix(".begun").mkdir(parents=True)
    except FileExistsError:
        deadline = time.monotonic() + 200
        while not done.exists():
            assert time.monotonic() < deadline, f"another worker has not made {folder}"
            time.sleep(0.1)
    else:
        make(folder)
        done.touch()
    return folder


def make_lab(tmp_path_factory, name, **texts):
    """Returns a folder, the same in all workers, with a config, its data and compiled programs.

    Args:
      texts: folder -> the text that is prepared there, in addition to `data` of the config.
    """
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    return once(root / name, lambda folder: fill_lab(folder, **texts))


def fill_lab(folder, **texts):
    for data, text in ({"data": "one fish two fish "} | texts).items():
        prepare([Document(data, text * 80)], "byte", folder / data)
    (folder / "config.py").write_text(CONFIG.format(data=str(folder / "data")))


# Sampling takes a third of the time of a resumed run, and changes nothing that it computes.
NO_SAMPLE = "--config.eval.sample_tokens=0"


_DEVICES = "--xla_force_host_platform_device_count="
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    # Those of the tests themselves, for one device.
    "XLA_FLAGS": " ".join(
        flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_DEVICES)
    ),
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    ),
}


def start(
    lab,
    workdir,
    *flags,
    devices=8,
    env=None,
    module="gpt2_jax",
    stdout=subprocess.DEVNULL,
    launcher=(),
):
    """Starts a process that trains; those with equally many devices share compiled programs.

    Args:
      launcher: the words before the command, if another program is to start it.
    """
    cache = {  # unless the environment names a folder
        "JAX_COMPILATION_CACHE_DIR": str(lab / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    settings = SETTINGS | {"XLA_FLAGS": f"{SETTINGS['XLA_FLAGS']} {_DEVICES}{devices}"}
    command = [*launcher, sys.executable, "-m", module, "train", "--config", str(lab / "config.py")]
    return subprocess.Popen(
        [*command, "--workdir", str(workdir), *flags],
        env=cache | os.environ | settings | (env or {}),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(lab, workdir, *flags, status=0, **settings):
    """Trains in another process; returns what it prints on standard error."""
    process = start(lab, workdir, *flags, **settings)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == status, errors
    return errors


def train_here(lab, workdir, *flags):
    """Trains in this process, which has loaded JAX already; returns the exit status."""
    return main(["train", "--config", str(lab / "config.py"), "--workdir", str(workdir), *flags])


def start_group(lab, workdir, *flags, processes, devices=1, env=None, **settings):
    """Starts the processes of one run, with so many devices each, in one workdir or several."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    cluster = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
    workdirs = [workdir] * processes if isinstance(workdir, Path) else workdir
    return [
        start(
            lab,
            workdirs[rank],
            *flags,
            devices=devices,
            env=(env or {}) | cluster | {"JAX_PROCESS_ID": str(rank)},
            **settings,
        )
        for rank in range(processes)
    ]


def finish(group, status=0):
    """Waits for all processes; returns what each of them printed on standard error."""
    try:
        errors = [process.communicate(timeout=200)[1] for process in group]
    finally:
        for process in group:
            process.kill()
    assert [process.returncode for process in group] == [status] * len(group), errors
    return errors


def wait_for_lines(workdir, group, count):
    deadline = time.monotonic() + 150
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < deadline
        assert [process.poll() for process in group] == [None] * len(group)
        time.sleep(0.05)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
    by_step = [(line["step"], line["loss"]) for line in lines(workdir) if "loss" in line]
    assert [step for step, _ in by_step] == list(range(1, len(by_step) + 1))  # each step once
    return [loss for _, loss in by_step]


def arrays(workdir, step=20):
    """Returns every array of a checkpoint, read onto one device."""
    config = load_config(workdir / ".." / "config.py")
    mesh = make_mesh(from_dict({}).mesh, jax.devices()[:1])
    abstract = abstract_state(config, make_optimizer(config), mesh, Rules())
    store = CheckpointStore(workdir / "checkpoints", keep=9)
    try:
        state = store.restore(step, abstract.params, without_params(abstract))
    finally:
        store.close()
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def identical(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
