from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from gpt2_jax.cli import plan as cli_plan
from gpt2_jax.cli.main import main

_SMALL = ["plan", "--config", "configs/gpt2_small.py"]
_H100 = ["--chip", "h100-sxm", "--devices", "8"]


@pytest.fixture(autouse=True)
def same_environment(monkeypatch):
    # The verb sets variables for libtpu; here JAX is up already.
    monkeypatch.setattr(cli_plan, "_use_no_devices", lambda: None)


@pytest.mark.slow
def test_a_plan_needs_no_platform_that_the_environment_names():
    words = [*_SMALL, *_H100]
    code = f"from gpt2_jax.cli.main import main; raise SystemExit(main({words!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_PLATFORMS": "cuda", "JAX_PLATFORM_NAME": "tpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "MFU" in done.stdout, done.stderr


def test_a_plan_for_gpus_is_one_json_document_labelled_as_analytic(capsys):
    assert main([*_SMALL, *_H100, "--price", "2.5", "--json"]) == 0
    out = capsys.readouterr().out
    values = json.loads(out)
    assert values["topology"] == "8 x h100-sxm" and values["devices"] == 8
    assert values["method"].startswith("analytic") and values["collectives"] is None
    assert set(values) >= {
        "fits", "memory_bytes", "flops_per_step", "step_seconds", "tokens_per_second", "mfu",
        "compile_seconds", "days", "chip_hours", "dollars",
    }  # fmt: skip


def test_without_libtpu_a_slice_is_planned_from_shapes_and_that_is_said(capsys, monkeypatch):
    monkeypatch.setattr(cli_plan, "libtpu_installed", lambda: False)
    assert main([*_SMALL, "--topology", "v5e:4x4"]) == 0
    captured = capsys.readouterr()
    assert "pip install 'gpt2_jax[tpu]'" in captured.err
    assert "v5e:4x4, 16 devices" in captured.out and "nothing was compiled" in captured.out


@pytest.mark.parametrize("line", cli_plan.EXAMPLES.splitlines())
def test_the_examples_of_the_help_are_valid(line, capsys):
    assert main([*line.split()[1:], "--analytic"]) == 0
    assert "MFU" in capsys.readouterr().out


def test_an_unset_mesh_is_chosen_and_said_and_one_that_is_set_is_kept(capsys):
    flags = ["plan", "--config", "configs/gpt2_xl.py", "--topology", "v5e:16x16", "--analytic"]
    assert main([*flags, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["mesh"] == {"data": 4, "fsdp": 64, "tensor": 1}
    assert (
        "note: mesh: data 4 x fsdp 64 x tensor 1 (chosen, as mesh is unset: about" in captured.err
    )
    assert main([*flags, "--json", "--config.mesh.fsdp=16"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["mesh"] == {"data": 16, "fsdp": 16, "tensor": 1}
    assert "mesh" not in captured.err


def test_what_is_not_expected_to_fit_is_planned_nevertheless_and_told_what_to_set(capsys):
    words = [*_SMALL, "--chip", "v5e", "--devices", "8"]
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["fits"] is False
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "DOES NOT FIT" in captured.out
    assert "mesh: mesh is unset, and no layout" not in captured.err
    assert "set train.accumulation_steps=2" in captured.err


def test_the_note_on_the_mesh_and_the_plan_name_one_size_of_memory(capsys):
    flags = ["--config.train.batch_size=64", "--chip", "h100", "--devices", "8"]
    assert main([*_SMALL, *flags]) == 0
    captured = capsys.readouterr()
    assert " of 60.0 GiB a device" in captured.err
    assert " of 60.00 GiB a device (what JAX takes of 80.00 GiB), " in captured.out


def test_one_device_is_told_only_what_it_can_do(capsys):
    assert main([*_SMALL, "--chip", "h100", "--devices", "1"]) == 1
    out = capsys.readouterr().out
    assert "; raise train.accumulation_steps or compute.remat, or use --search" in out
    deep = ["--config.model.num_layers=400", "--chip", "l4", "--devices"]
    assert main([*_SMALL, *deep, "1"]) == 1
    assert "the state alone exceeds it: use more devices\n" in capsys.readouterr().out
    assert main([*_SMALL, *deep, "8", "--config.mesh.data=8"]) == 1
    assert "exceeds it: raise mesh.fsdp or use more devices\n" in capsys.readouterr().out
    full = ["--config.train.accumulation_steps=512", "--config.compute.remat=full"]
    context = ["--config.model.context_length=524288", "--config.mesh.data=1"]
    assert main([*_SMALL, *full, *context, "--chip", "l4", "--devices", "1"]) == 1
    assert "GiB too much; use more devices\n" in capsys.readouterr().out


def test_search_prints_a_line_for_each_that_fits(capsys):
    flags = ["--analytic", "--search", "--search_count", "2", "--config.train.batch_size=64"]
    assert main([*_SMALL, *_H100, *flags, "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert len(plans) == 2 and all(plan["fits"] for plan in plans)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --topology CHIP:SHAPE, or --chip"),
        ([*_H100, "--topology", "v5e:4x4"], "either --topology"),
        (["--chip", "h100-sxm"], "--chip and --devices must be passed together"),
        (["--chip", "h100-sxm", "--devices", "0"], "--devices must be greater than 0"),
        (["--chip", "h100_sxm", "--devices", "8"], "did you mean"),
        (["--topology", "v5e:5x5"], "v5e comes as"),
        (["--topology", "v5e:4x4", "--slices", "0"], "--slices must be at least 1, not 0"),
        (["--topology", "v4:2x2x4", "--slices", "2"], "it is for v5e, v5p, v6e"),
        ([*_H100, "--slices", "2"], "--slices needs --topology"),
        (
            ["--topology", "v5e:4x4", "--slices", "2", "--analytic", "--config.mesh.fsdp=32"],
            "only data may span slices",
        ),
        (["--topology", ""], "give CHIP:SHAPE"),
        ([*_H100, "--config.mesh.fsdp=3"], "8 cannot be divided by fsdp=3; the axes must multiply"),
        ([*_H100, "--config.train.batch_size=9"], "set train.batch_size=16, or use fewer devices"),
        ([*_H100, "--config.train.batch_size=9", "--config.mesh.data=8"], "must be a multiple"),
        ([*_H100, "--search", "--search_seconds", "-1"], "--search_seconds must be greater than 0"),
        ([*_H100, "--search_count", "5"], "--search_count needs --search, without which it has no"),
        ([*_H100, "--search_seconds", "5"], "--search_seconds needs --search"),
        ([*_H100, "--price", "nan"], "--price must be greater than 0 and at most 1000000, not nan"),
        (["--chip", "h100", "--devices", str(10**400)], "--devices must be greater than 0 and"),
        (["--chip", "h100", "--devices", "720720", "--config.mesh.fsdp=17"], "each a divisor of"),
        (["--chip", "l4", "--devices", "1", "--analytic", "--search",
          "--config.model.num_layers=400"], "choices was found to fit"),
        (["--topology", "v5litepod-16"], "write v5e:4x4"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_status_2(flags, message, capsys):
    assert main([*_SMALL, *flags]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and err.startswith("error: ")
