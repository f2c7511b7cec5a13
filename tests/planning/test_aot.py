"""Programs compiled for TPU slices move only what their layout needs, and no activations."""

from __future__ import annotations

import functools

import pytest

from gpt2_jax.config import from_dict
from gpt2_jax.model import embedding, gpt2, linear, loss
from gpt2_jax.planning.aot import CompiledStep, DoesNotFit, compile_step
from gpt2_jax.planning.plan import compiled_plan
from gpt2_jax.planning.topology import compile_without_devices, parse_topology

pytestmark = [pytest.mark.libtpu, pytest.mark.usefixtures("no_devices")]

L = 3
_MODEL = {
    "num_layers": L,
    "num_heads": 4,
    "d_model": 512,
    "context_length": 256,
    "vocab_size": 1000,
}


@pytest.fixture(scope="module")
def no_devices():
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            *("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"),
            "JAX_ENABLE_COMPILATION_CACHE",
        ):
            patch.setenv(name, "")  # so that it is put back
        compile_without_devices()
        yield


def config(axes, rows=4, accumulation_steps=1, **compute):
    data, fsdp, tensor = axes
    batch_size = rows * data * fsdp * accumulation_steps
    return from_dict(
        {
            "model": _MODEL,
            "compute": {"loss_chunk": 64, "scan_unroll": 1} | compute,
            "mesh": {"data": data, "fsdp": fsdp, "tensor": tensor},
            "train": {"batch_size": batch_size, "accumulation_steps": accumulation_steps},
        }
    )


@functools.cache
def compiled(axes, **choices):
    return compile_step(config(axes, **choices), parse_topology("v5e:4x4"))


def moved(step):
    """{(kind, axes, of)} of what is not small."""
    return {(t.kind, t.axes, t.of) for t in step.transfers if t.of != "scalars"}


def runs(step, *wanted):
    return sum(t.count for t in step.transfers if (t.kind, t.axes, t.of) == wanted)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_fsdp_gathers_weights_and_reduces_gradients_and_moves_nothing_else(remat):
    step = compiled((1, 16, 1), remat=remat)
    assert isinstance(step, CompiledStep) and step.memory.fits
    assert step.rematerializations == 0
    assert moved(step) == {
        ("all-gather", ("fsdp",), "parameters"),
        ("all-reduce", ("fsdp",), "gradients"),
    }
    # Four matrices in each layer, forward and backward; and the two embeddings, once.
    assert runs(step, "all-gather", ("fsdp",), "parameters") == 8 * L + 2


def test_fsdp_beside_replicas_scatters_its_gradients():
    step = compiled((4, 4, 1))
    assert {of for _, _, of in moved(step)} == {"parameters", "gradients"}
    assert {axes for kind, axes, _ in moved(step) if kind == "all-gather"} == {("fsdp",)}
    assert ("reduce-scatter", ("fsdp",), "gradients") in moved(step)


def test_unrolled_layers_move_what_scanned_ones_do():
    scanned, unrolled = compiled((4, 4, 1)), compiled((4, 4, 1), scan_unroll=L)
    reduced = [
        sum(t.bytes for t in step.transfers if t.of == "gradients") for step in (scanned, unrolled)
    ]
    assert reduced[1] == pytest.approx(reduced[0], rel=0.01)
    gathered = [
        sum(t.bytes for t in step.transfers if t.of == "parameters") for step in (scanned, unrolled)
    ]
    # The last layer may keep its MLP's two matrices for the backward pass, which comes next.
    assert 0 <= gathered[0] - gathered[1] <= 1.01 * 2 * 512 * 2048 * 2


def test_tensor_parallelism_reduces_activations_over_its_own_axis_and_never_gathers_them():
    step = compiled((2, 4, 2))
    activations = {(kind, axes) for kind, axes, of in moved(step) if of == "activations"}
    assert activations == {("all-reduce", ("tensor",))}
    assert not any(kind == "all-to-all" for kind, _, _ in moved(step))
    large = [t for t in step.transfers if t.of == "activations" and t.count == L]
    assert len(large) == 4  # after attention and MLP, forward; before them, backward


def test_an_unrolled_program_moves_no_activations_either():
    step = compiled((4, 4, 1), scan_unroll=L)
    assert {of for _, _, of in moved(step)} == {"parameters", "gradients"}
    assert {axes for kind, axes, _ in moved(step) if kind == "all-gather"} == {("fsdp",)}
    assert step.cycles < 0.95 * compiled((4, 4, 1)).cycles


def test_replicas_alone_only_reduce_gradients():
    assert moved(compiled((16, 1, 1))) == {("all-reduce", ("data",), "gradients")}


def test_a_layout_moves_little_more_than_it_must_on_paper():
    plan = compiled_plan(config((1, 16, 1)), parse_topology("v5e:4x4"))
    assert plan.traffic_ratio is not None and 0.8 < plan.traffic_ratio < 1.3
    assert plan.memory.by_kind["parameters"] < plan.parameters * 4 / 16 * 1.1
    assert plan.memory.needed < plan.memory.available
    best, worst = plan.step_seconds
    assert 0 < best < worst


def test_accumulation_gathers_in_every_microbatch_and_reduces_the_embedding_as_often():
    once, twice = compiled((1, 16, 1)), compiled((1, 16, 1), accumulation_steps=2)
    gathers = [runs(step, "all-gather", ("fsdp",), "parameters") for step in (once, twice)]
    assert gathers[0] == 8 * L + 2
    assert 16 * L < gathers[1] <= 16 * L + 4


@pytest.mark.parametrize("axes", [(2, 16, 1), (8, 4, 1)])
def test_only_gradients_move_between_slices(axes):
    step = compile_step(config(axes), parse_topology("v5e:4x4", num_slices=2))
    network = {(kind, of) for kind, axes, of in moved(step) if "network" in axes}
    assert network == {("all-reduce", "gradients")}
    assert ("all-gather", ("fsdp",), "parameters") in moved(step)
    assert {of for _, _, of in moved(step)} == {"parameters", "gradients"}


def test_without_constraints_activations_are_gathered(monkeypatch):
    # Otherwise the tests above would see nothing.
    for module in (linear, embedding, loss):
        monkeypatch.setattr(module, "gather", lambda w, axes, dtype: w.astype(dtype))
    for module in (gpt2, linear, embedding, loss):
        monkeypatch.setattr(module, "constrain", lambda x, axes: x)
    step = compile_step(config((1, 16, 1)), parse_topology("v5e:4x4"))
    assert "activations" in {of for _, _, of in moved(step)}


def test_what_does_not_fit_says_by_how_much():
    step = compile_step(config((1, 1, 1), rows=4096), parse_topology("v5e:1x1"))
    assert isinstance(step, DoesNotFit) and not step.memory.fits
    assert step.memory.needed > step.memory.available > 15 * 2**30
    assert set(step.memory.by_kind) == {"parameters", "optimizer", "gradients"}
