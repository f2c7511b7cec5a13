from __future__ import annotations

import dataclasses
import json

import pytest

from gpt2_jax.config import ComputeConfig, Config, MeshConfig, ModelConfig
from gpt2_jax.parallel.chips import chip_named
from gpt2_jax.planning.estimate import Estimate
from gpt2_jax.planning.memory import Memory
from gpt2_jax.planning.plan import COMPILED, Plan
from gpt2_jax.planning.report import as_json, as_table, as_text
from gpt2_jax.planning.transfers import Transfer

_GIB, _MIB = 2**30, 2**20
_KEYS = (
    "topology chip devices mesh method fits memory_bytes needed_bytes available_bytes collectives "
    "traffic_ratio rematerializations flops_per_step tokens_per_step rows_per_device "
    "accumulation_steps remat parameters trained_parameters total_steps compile_seconds "
    "step_seconds exposed_seconds kernel_peak tokens_per_second mfu days chip_hours"
)
_AXES = {"data": 4, "fsdp": 4, "tensor": 1}
_STATE = {"parameters": 4 * _GIB, "optimizer": 8 * _GIB, "gradients": 4 * _GIB}
_CONFIG = Config(
    model=ModelConfig(vocab_size=50257),
    compute=ComputeConfig(remat="dots"),
    mesh=MeshConfig(4, 4, 1),
)
_WEIGHTS = 2 * (124_439_808 + 47 * 768)


def compiled(transfers=(), rematerializations=0):
    memory = Memory(_STATE | {"activations": _GIB}, 13 * _GIB, 15 * _GIB, fits=True)
    estimate = Estimate(compute_seconds=(1.0, 2.0), exposed_seconds=(0.5, 1.0))
    chip = chip_named("v5e")
    return Plan(
        "v5e:4x4", _CONFIG, chip, _AXES, memory, estimate, transfers, rematerializations, 38.0
    )


def refused(needed):
    memory = Memory(_STATE, needed, 15 * _GIB, fits=False)
    return Plan("v5e:4x4", _CONFIG, chip_named("v5e"), _AXES, memory, compile_seconds=2.0)


@pytest.mark.parametrize("plan", [compiled(), refused(20 * _GIB)])
def test_json_always_has_the_same_keys(plan):
    values = as_json(plan)
    assert list(values) == _KEYS.split()
    assert json.loads(json.dumps(values)) == values
    assert values["method"] == COMPILED and values["devices"] == 16 and values["mesh"] == _AXES


def test_transfers_are_summed_and_compared_with_the_minimum():
    gather = Transfer("all-gather", "parameters", ("fsdp",), 4, 24, 2 * _WEIGHTS, True)
    reduction = Transfer("all-reduce", "gradients", ("data", "fsdp"), 16, 2, _WEIGHTS // 4, False)
    norms = Transfer("all-reduce", "scalars", ("data", "fsdp"), 16, 7, 4096, False)
    plan = compiled((norms, gather, reduction, gather))
    values = as_json(plan)
    assert values["collectives"][0] == {
        "kind": "all-gather",
        "axis": "fsdp",
        "of": "parameters",
        "asynchronous": True,
        "count": 48,
        "bytes": 4 * _WEIGHTS,
    }
    assert [row["axis"] for row in values["collectives"]] == ["fsdp", "data+fsdp", "data+fsdp"]
    # The minimum: two gathers and a reduction over fsdp, and of a fourth over data.
    assert values["traffic_ratio"] == pytest.approx(4.25 / 3.25)
    text = as_text(plan)
    assert f"48 times {4 * _WEIGHTS / _MIB:>10,.1f} MiB, overlapped" in text
    assert "and 7 of norms" in text and "1.31 of the layout's minimum" in text
    assert "gathered whole" not in text
    assert "3 arrays are gathered whole" in as_text(compiled(rematerializations=3))


def test_the_text_says_where_the_kernels_share_of_the_peak_comes_from():
    estimate = Estimate((1.0, 2.0), (0.5, 1.0), kernel_peak=(1 / 3, 1 / 6))
    plan = dataclasses.replace(compiled(), estimate=estimate)
    assert as_json(plan)["kernel_peak"] == [1 / 6, 1 / 3]
    assert (
        "\nkernel      attention at 17 to 33 % of the peak: heads 64 wide, matrix unit 128, blocks "
        "of 512, T = 1024\n" in as_text(plan)
    )
    assert "\nkernel" not in as_text(compiled())


def test_what_compiled_without_transfers_says_so_with_an_empty_list():
    assert as_json(compiled())["collectives"] == []


@pytest.mark.parametrize(
    ("needed", "message"),
    [
        (20, "DOES NOT FIT: 20.00 GiB of 15.00 GiB a device, temporaries alone are 5.00 GiB too"),
        (
            15,
            "DOES NOT FIT: 15.00 GiB of 15.00 GiB a device, according to the compiler; raise train",
        ),
    ],
)
def test_what_the_compiler_refuses_has_no_times(needed, message):
    plan = refused(needed * _GIB)
    values = as_json(plan, 2.0)
    assert not values["fits"] and "dollars" not in values
    assert [name for name, value in values.items() if value is None] == [
        "collectives", "traffic_ratio", "rematerializations", "step_seconds", "exposed_seconds",
        "kernel_peak", "tokens_per_second", "mfu", "days", "chip_hours",
    ]  # fmt: skip
    text = as_text(plan, 2.0)
    assert message in text and "compute.remat" in text
    assert "transfers" not in text and "tokens/s" not in text
    assert as_table([plan]).endswith("does not fit")
