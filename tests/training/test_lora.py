"""Tests for runs that train adapters: what is trained, saved, resumed and read."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil

import jax
import numpy as np
import pytest

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.cli.main import main
from gpt2_jax.config import from_dict, to_dict
from gpt2_jax.errors import UserError
from gpt2_jax.experiment import dry_run
from gpt2_jax.formats.load import load
from gpt2_jax.formats.run_model import resolve_model
from gpt2_jax.model import lora
from gpt2_jax.model.trainable import names
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.training.initial import read_initial
from gpt2_jax.training.trainer import Trainer
from tests.inference.tiny import make_run, noisy_params
from tests.training.tiny import Recorder, make_config, make_setup

ADAPTERS = 2 * 2 * (4 * 32 + 2 * 32 + 2 * 5 * 32)  # layers, rank, inputs and outputs of the targets
LORA = {"model__lora_rank": 2, "model__lora_alpha": 4.0, "schedule__learning_rate": 1e-2}
SHORT = {"train__total_steps": 6, "checkpoint__every": 3, "eval__every": 3}


def configured(base, **changes):
    return make_config(**LORA, **SHORT, train__init_from=str(base), **changes)


def prepared(config, evaluators=()):
    """The setup of a run that really reads its base."""
    tokenizer = ByteTokenizer()
    return make_setup(
        config,
        evaluators,
        tokenizer=tokenizer.to_dict(),
        read_params=lambda name, abstract: read_initial(config, name, tokenizer, abstract),
    )


def write_base(folder, seed):
    """Writes a run whose parameters are other noise."""
    make_run(folder, make_config())
    with contextlib.closing(CheckpointStore(folder / "checkpoints", keep=1)) as store:
        meta = store.meta(2)
        store.save(3, noisy_params(make_config(), seed), {"step": np.int32(3)}, meta)
        store.wait()
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a base and a run, and what an evaluator of the run saw."""
    folder = tmp_path_factory.mktemp("lora")
    base = make_run(folder / "base", make_config())
    recorder = Recorder()
    config = configured(base)
    Trainer(config, folder / "whole", prepared(config, [recorder])).run()
    return folder, recorder.seen


@pytest.fixture(scope="module")
def halves(home):
    """What an evaluator saw of a run in `home` that was stopped at step 3 and resumed."""
    folder, _ = home
    config, recorder = configured(folder / "base"), Recorder()
    for stop in (3, None):
        Trainer(config, folder / "halves", prepared(config, [recorder])).run(stop)
    return recorder.seen


@pytest.mark.slow
def test_only_adapters_move_and_a_resumed_run_is_the_same_to_the_bit(home, halves):
    _, seen = home
    base = noisy_params(make_config())
    last = seen[-1]
    jax.tree.map(np.testing.assert_array_equal, last, halves[-1])
    merged = lora.merge(jax.tree.map(np.zeros_like, last) | {"h": last["h"]}, configured("x").model)
    for name, leaf in zip(names(last), jax.tree.leaves(last), strict=True):
        node = base
        keys = name.split(".")
        if keys[-1] in (lora.LORA_A, lora.LORA_B):
            assert leaf.any(), name
            continue
        for key in keys:
            node = node[key]
        np.testing.assert_array_equal(leaf, node)
    kernels = (tree["h"]["mlp"]["c_fc"]["kernel"] for tree in (merged, base))
    assert not np.array_equal(*kernels)


@pytest.mark.slow
def test_a_checkpoint_holds_adapters_their_state_and_the_name_of_the_base(home):
    folder, _ = home
    step = folder / "whole" / "checkpoints" / "6"
    with contextlib.closing(CheckpointStore(step.parent, read_only=True)) as store:
        stored = jax.tree.leaves(store._stored(6, "params"))
    assert sum(4 * math.prod(leaf.shape) for leaf in stored) == 4 * ADAPTERS == 8192
    with contextlib.closing(CheckpointStore(step.parent)) as store:
        sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(store._stored(6, "rest"))]
    assert 2 * ADAPTERS <= sum(sizes) <= 2 * ADAPTERS + 8
    meta = json.loads((step / "meta" / "metadata").read_text())
    assert meta["base"]["name"] == str((folder / "base" / "checkpoints" / "2").resolve())
    assert re.fullmatch("[0-9a-f]{64}", meta["base"]["fingerprint"])


def test_the_state_and_the_counts_are_of_adapters_alone(home):
    folder, _ = home
    report = dry_run(configured(folder / "base"))
    assert report["trained_parameters"] == ADAPTERS
    assert report["parameters"] == ADAPTERS + dry_run(make_config())["parameters"]
    assert report["memory_bytes"]["gradients"] == 4 * ADAPTERS
    assert report["memory_bytes"]["optimizer"] == pytest.approx(8 * ADAPTERS, abs=16)


def test_the_model_is_read_with_its_base(home):
    folder, seen = home
    model = load(folder / "whole")
    jax.tree.map(np.testing.assert_array_equal, model.params, seen[-1])
    assert model.config.model.lora_rank == 2
    assert model.base and model.base.name == str((folder / "base" / "checkpoints" / "2").resolve())


@pytest.mark.slow
@pytest.mark.usefixtures("halves")
def test_another_mesh_gives_the_same_within_1e_5(home):
    folder, seen = home
    config = configured(folder / "base", mesh__data=2, mesh__fsdp=2, mesh__tensor=2)
    recorder = Recorder()
    shutil.copytree(folder / "halves", folder / "meshed")
    shutil.rmtree(folder / "meshed" / "checkpoints" / "6")
    (folder / "meshed" / "config.json").unlink()
    (folder / "meshed" / "metrics.jsonl").unlink()
    Trainer(config, folder / "meshed", prepared(config, [recorder])).run()
    for one, other in zip(
        jax.tree.leaves(recorder.seen[-1]), jax.tree.leaves(seen[-1]), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_another_base_is_refused(home, tmp_path):
    folder, _ = home
    other = write_base(tmp_path / "other", seed=1)
    config = configured(other)
    trainer = Trainer(config, folder / "whole", prepared(config))
    with pytest.raises(UserError, match=r"is not the base that the adapters in .* were trained on"):
        trainer.run()


def test_a_missing_or_changed_base_is_one_line(home, tmp_path, capsys):
    folder, _ = home
    base = (folder / "base").resolve()
    sample = ["sample", "--model", str(folder / "whole"), "--max_new_tokens", "1"]
    doctor = ["doctor", "--model", str(folder / "whole")]
    assert main(doctor) == 0
    assert "step 6  good" in capsys.readouterr().out
    base.rename(tmp_path / "moved")
    try:
        assert main(doctor) == 78
        out = capsys.readouterr().out
        missing = f"step 6  the base of its adapters is missing, which was {base}/checkpoints/2; if"
        assert missing in out
        assert "no step is good" in out
        assert main([*doctor, "--json"]) == 78
        for step in json.loads(capsys.readouterr().out)["steps"]:
            assert (step["damaged"], step["resumable"]) == (False, False)
        (base / "checkpoints" / "2").mkdir(parents=True)
        assert main(doctor) == 78
        assert "of the adapters in" in capsys.readouterr().out
        shutil.rmtree(base)
        assert main(sample) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"the base {base}/checkpoints/2 of the adapters in" in error
        write_base(base, seed=1)
        assert main(sample) == 2
        assert "is not the base that the adapters in" in capsys.readouterr().err
    finally:
        shutil.rmtree(base, ignore_errors=True)
        (tmp_path / "moved").rename(base)


def test_a_run_with_adapters_continues_merged_and_is_no_base(home):
    folder, seen = home
    plain = make_config(train__init_from=str(folder / "whole"))
    recorder = Recorder()
    read = prepared(plain, [recorder]).read_params
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
        ),
        noisy_params(make_config()),
    )
    merged = lora.merge(seen[-1], configured("x").model)
    for one, other in zip(
        jax.tree.leaves(read(str(folder / "whole"), shapes)), jax.tree.leaves(merged), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    again = configured(folder / "whole")
    with pytest.raises(UserError, match="adapters cannot be added to adapters"):
        prepared(again).read_params(str(folder / "whole"), shapes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer__freeze": "wte"}, "optimizer.freeze=wte has no effect with model.lora_rank=2"),
        ({"model__mup_base_width": 16}, "model.mup_base_width=16 exclude each other"),
        ({"model__lora_rank": 33}, "must be at most model.d_model=32"),
        ({"model__lora_alpha": 0.0}, "model.lora_alpha=0 multiplies"),
        ({"model__lora_targets": "attn.c_attn,c_proj"}, "'c_proj' is no linear layer: choose from"),
        ({"model__lora_targets": "mlp.c_gate"}, "model.activation=gelu_new does not have"),
        ({"model__lora_targets": "attn.c_attn, attn.c_attn"}, "names attn.c_attn twice"),
        ({"model__lora_targets": ""}, "'' is no linear layer"),
    ],
)
def test_knobs_that_do_not_fit_are_refused(changes, words):
    values = to_dict(configured("base"))
    for key, value in changes.items():
        section, name = key.split("__")
        values[section][name] = value
    with pytest.raises(UserError, match=re.escape(words)):
        from_dict(values)


def test_adapters_need_a_model_once_the_run_starts():
    with pytest.raises(UserError, match=r"name it with --config\.train\.init_from=M"):
        resolve_model(make_config(**LORA, **SHORT))


@pytest.mark.slow
def test_a_shorter_context_is_cut_and_a_longer_one_refused(home):
    folder, _ = home
    short = configured(folder / "base", model__context_length=8, train__init_resize=True)
    run = Trainer(short, folder / "short", prepared(short))
    np.testing.assert_array_equal(
        run._initial_params["wpe"], noisy_params(make_config())["wpe"][:8]
    )
    longer = configured(folder / "base", model__context_length=32, train__init_resize=True)
    with pytest.raises(UserError, match=r"adapters .LoRA. would never train them: set at most 16"):
        Trainer(longer, folder / "long", prepared(longer))
