from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gpt2_jax.config import MeshConfig
from gpt2_jax.parallel.mesh import describe, make_mesh
from gpt2_jax.planning.collectives import transfers
from gpt2_jax.planning.hlo import Program
from gpt2_jax.planning.transfers import merge_transfers
from tests.planning.programs import TPU, TPU_AXES


def found_in(text, axis_sizes):
    return transfers(Program(text), axis_sizes, lambda kind, arrays: f"{kind} of {arrays[0].dims}")


def test_collectives_are_read_with_kind_size_axis_and_whether_they_overlap():
    listed = found_in(TPU, TPU_AXES)
    found = {transfer.kind: transfer for transfer in listed}
    assert len(listed) == 4  # the gather once, although two fusions show it
    assert set(found) == {"all-gather", "reduce-scatter", "collective-permute", "all-reduce"}
    gather = found["all-gather"]
    assert (gather.count, gather.bytes, gather.axes) == (12, 12 * 32 * 32 * 2, ("fsdp",))
    assert gather.asynchronous and gather.of == "all-gather of (32, 32)"
    scatter = found["reduce-scatter"]
    assert (scatter.count, scatter.bytes) == (12, 12 * 64 * 32 * 2)
    assert scatter.of == "reduce-scatter of (64, 32)"
    # Two groups of four, counted down the columns: 0, 2, 4, 6.
    assert scatter.axes == ("data", "fsdp")
    assert not scatter.asynchronous
    permute = found["collective-permute"]
    assert (permute.count, permute.bytes, permute.axes) == (1, 32, ("data",))
    assert permute.asynchronous
    assert found["all-reduce"].axes == ("data", "fsdp") and found["all-reduce"].group == 8


def unrolled(text, layers):
    """The program with a copy of the loop's body for each layer, on the same channels."""
    computations = re.split(r"(?m)(?<=^}\n)\n", text)
    fused = ("%all-reduce-scatter", "%start", "%beside")
    fusions = [computation for computation in computations if computation.startswith(fused)]
    (body,) = [c for c in computations if c.startswith("%body")]
    (entry,) = [c for c in computations if c.startswith("ENTRY")]
    work = [line for line in body.splitlines() if "calls=" in line]

    def copy(text, layer):
        return re.sub(r"(%[a-z][\w.-]*)", rf"\1.layer{layer}", text)

    layers = range(layers)
    lines = [copy(line, layer) for layer in layers for line in work]
    loop = next(line for line in entry.splitlines() if "while(" in line)
    copies = [copy(c, layer) for layer in layers for c in fusions]
    return "\n\n".join([*copies, entry.replace(loop, "\n".join(lines))])


def test_layers_of_an_unrolled_scan_count_each_though_they_share_channels():
    scanned, apart = found_in(TPU, TPU_AXES), found_in(unrolled(TPU, 12), TPU_AXES)
    assert len(apart) == 2 + 2 * 12
    assert merge_transfers(apart) == merge_transfers(scanned)


_BETWEEN_SLICES = """
ENTRY %main (p: bf16[48,8,128]) -> token[] {
  %p = bf16[48,8,128]{2,1,0} parameter(0)
  %start = token[] after-all()
  %send.1 = (bf16[48,8,128]{2,1,0}, u32[], token[]) send(%p, %start), channel_id=4, \
is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv.1 = (bf16[48,8,128]{2,1,0}, u32[], token[]) recv(%start), channel_id=5, \
is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %outfeed.1 = (bf16[48,8,128]{2,1,0}, u32[], token[]) send(%p, %start), channel_id=6
  ROOT %end = token[] send-done(%send.1), channel_id=4
}
"""


def test_what_is_sent_to_other_slices_is_a_transfer_over_the_network():
    axes = {"data": 4, "fsdp": 2, "tensor": 1}
    classify = lambda kind, arrays: f"{kind} of {arrays[0].dims}"  # noqa: E731
    (transfer,) = transfers(Program(_BETWEEN_SLICES), axes, classify, num_slices=2)
    assert (transfer.kind, transfer.axes, transfer.group) == ("all-reduce", ("network",), 2)
    assert (transfer.count, transfer.bytes) == (1, 48 * 8 * 128 * 2)
    assert transfer.of == f"all-reduce of {(48 * 8 * 128,)}" and transfer.asynchronous
    unknown = _BETWEEN_SLICES.replace("ALL_REDUCE", "SHUFFLE")
    with pytest.raises(ValueError, match="unknown transfer between slices"):
        transfers(Program(unknown), axes, classify, num_slices=2)


def test_what_a_device_exchanges_with_itself_is_no_transfer():
    alone = TPU.replace("replica_groups={{0,1,2,3,4,5,6,7}}", "replica_groups={{0},{1}}")
    assert "all-reduce" not in {transfer.kind for transfer in found_in(alone, TPU_AXES)}


@pytest.mark.parametrize("axis", ["data", "fsdp", "tensor"])
def test_what_xla_compiles_here_reads_as_it_was_written(axis):
    mesh = make_mesh(MeshConfig(2, 2, 2))
    whole = NamedSharding(mesh, PartitionSpec())

    def step(weights):
        def layer(total, weight):
            gathered = jax.lax.with_sharding_constraint(weight, whole)
            return total + jnp.sin(gathered @ gathered), None

        return jax.lax.scan(layer, jnp.zeros((16, 16)), weights)[0]

    shape = jax.ShapeDtypeStruct(
        (5, 16, 16), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, None, axis))
    )
    with jax.set_mesh(mesh):
        text = jax.jit(step, out_shardings=whole).lower(shape).compile().as_text()
    gathers = [t for t in found_in(text, describe(mesh)) if t.kind == "all-gather"]
    assert {t.axes for t in gathers} == {(axis,)}
    # XLA may lift the gather out of the loop: all five layers move once either way.
    assert sum(t.bytes for t in gathers) == 5 * 16 * 16 * 4
