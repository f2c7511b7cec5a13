"""Processes that fine-tune together, or are killed, train on the batches of one that is not."""

from __future__ import annotations

import json
import os

import jax
import numpy as np
import pytest

from gpt2_jax.formats.load import load
from tests.inference.tiny import make_run, tiny_config
from tests.recorded import recorded
from tests.runs import finish, losses, once, start_group, train

_CONFIG = """
from gpt2_jax.config import default

def get_config():
    c = default()
    c.train.init_from = "{lab}/base"
    c.train.init_model = True
    c.train.batch_size = 8
    c.train.total_steps = 20
    c.data.path = "{lab}/train.jsonl"
    c.data.val_fraction = 0.1
    c.model.dropout = 0.1
    c.compute.dtype = "float32"
    c.schedule.learning_rate = 3e-3
    c.schedule.min_learning_rate = 3e-4
    c.schedule.warmup_steps = 3
    c.checkpoint.every = 8
    c.checkpoint.best = "eval/loss"
    c.eval.every = 8
    c.eval.sample_tokens = 0
    c.log.every = 1
    c.log.tensorboard = False
    return c
"""
_KINDS = {
    "everything": (),
    "adapters": (
        "--config.model.lora_rank=2",
        "--config.model.lora_targets=attn.c_attn,mlp.c_proj",
        "--config.model.lora_dropout=0.1",
    ),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a model, a file of examples of many lengths, and a config for them."""

    def make(folder):
        make_run(folder / "base", tiny_config())
        examples = [
            {"prompt": f"{i} " * (1 + i % 3), "answer": f"{i * 7 % 100}."} for i in range(60)
        ]
        text = "".join(f"{json.dumps(example)}\n" for example in examples)
        (folder / "train.jsonl").write_text(text, encoding="utf-8")
        (folder / "config.py").write_text(_CONFIG.format(lab=str(folder)), encoding="utf-8")

    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    return once(root / "finetuning", make)


@pytest.fixture(scope="module", params=_KINDS)
def tuned(request, lab):
    """The flags of a kind of fine-tuning, and its run that nothing interrupted."""
    flags = _KINDS[request.param]

    def make(workdir):
        train(lab, workdir, *flags, devices=1, **_recording(workdir))

    return flags, once(lab / f"{request.param}-alone", make)


def _recording(workdir, module="tests.recorded", **env):
    """The settings of a process that records its batches beside `workdir`."""
    folder = workdir.with_suffix(".batches")
    folder.mkdir(exist_ok=True)
    examples = str(workdir.with_suffix(".examples"))  # each prepares the file by itself
    return {
        "module": module,
        "env": {"RECORD_FOLDER": str(folder), "GPT2_JAX_EXAMPLES": examples, **env},
    }


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "axes"), [(2, {"fsdp": 2}), (4, {"data": 2, "tensor": 2})])
def test_processes_train_on_the_same_batches_to_the_same_losses(lab, tuned, processes, axes):
    flags, alone = tuned
    mesh = [f"--config.mesh.{axis}={size}" for axis, size in axes.items()]
    workdir = alone.with_name(f"{alone.name}-{processes}-{'-'.join(axes)}")
    finish(start_group(lab, workdir, *flags, *mesh, processes=processes, **_recording(workdir)))
    assert recorded(workdir.with_suffix(".batches")) == recorded(alone.with_suffix(".batches"))
    np.testing.assert_allclose(losses(workdir), losses(alone), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_bit(lab, tuned):
    flags, alone = tuned
    workdir = alone.with_name(f"{alone.name}-killed")
    met = {"FAULT": "0:13:SIGKILL", "FAULT_MET": str(workdir.with_suffix(".met"))}
    settings = _recording(workdir, module="tests.faulty", **met)
    train(lab, workdir, *flags, devices=1, status=-9, **settings)
    assert workdir.with_suffix(".met").exists()
    train(lab, workdir, *flags, devices=1, **_recording(workdir))
    assert losses(workdir) == losses(alone)
    jax.tree.map(np.testing.assert_array_equal, load(workdir).params, load(alone).params)
