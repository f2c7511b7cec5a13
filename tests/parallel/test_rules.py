from __future__ import annotations

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from gpt2_jax.config import ComputeConfig, Config, MeshConfig, ModelConfig, TrainConfig
from gpt2_jax.errors import UserError
from gpt2_jax.model import build, embedding, layout
from gpt2_jax.model.positions import unused_axes
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context, shardings
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state
from gpt2_jax.training.step import compile_eval_step

_MODEL = ModelConfig(2, 4, 32, 16, vocab_size=61, vocab_multiple=8)


def boxed_params(model=_MODEL):
    return jax.eval_shape(lambda key: build.boxed_params(model, key), jax.random.key(0))


def specs(axes, rules=Rules(), model=_MODEL):  # noqa: B008
    unused = unused_axes(model)
    tree = shardings(boxed_params(model), make_mesh(MeshConfig(*axes)), rules, unused=unused)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(e.key for e in path): leaf.spec for path, leaf in leaves}


def test_every_parameter_lies_as_the_rules_say():
    P = PartitionSpec
    assert specs((2, 2, 2)) == {
        "wte": P("tensor", "fsdp"),
        "wpe": P(None, "fsdp"),
        "h/ln_1/scale": P(None, None),
        "h/ln_1/bias": P(None, None),
        "h/attn/c_attn/kernel": P(None, "fsdp", None, "tensor", None),
        "h/attn/c_attn/bias": P(None, None, "tensor", None),
        "h/attn/c_proj/kernel": P(None, "tensor", None, "fsdp"),
        "h/attn/c_proj/bias": P(None, None),
        "h/ln_2/scale": P(None, None),
        "h/ln_2/bias": P(None, None),
        "h/mlp/c_fc/kernel": P(None, "fsdp", "tensor"),
        "h/mlp/c_fc/bias": P(None, "tensor"),
        "h/mlp/c_proj/kernel": P(None, "tensor", "fsdp"),
        "h/mlp/c_proj/bias": P(None, None),
        "ln_f/scale": P(None),
        "ln_f/bias": P(None),
    }


def test_a_name_without_a_rule_raises():
    with pytest.raises(ValueError, match="no sharding rule for logical axis 'embde'"):
        Rules().mesh_axes(PartitionSpec("vocab", "embde"))
    boxed = {"w": nn.LogicallyPartitioned(jax.ShapeDtypeStruct((8,), jnp.float32), ("embde",))}
    with pytest.raises(ValueError, match="embde"):
        shardings(boxed_params() | boxed, make_mesh(MeshConfig()), Rules())


def test_an_activation_without_a_rule_raises_while_tracing():
    with (
        sharding_context(make_mesh(MeshConfig()), Rules()),
        pytest.raises(ValueError, match="lenght"),
    ):
        jax.eval_shape(lambda x: layout.constrain(x, ("batch", "lenght")), jnp.zeros((8, 4)))


def test_a_rule_that_no_parameter_uses_raises():
    @dataclasses.dataclass(frozen=True)
    class MoreRules(Rules):
        experts: str | None = "tensor"

    with pytest.raises(ValueError, match=r"match no parameter: \['experts'\]"):
        specs((2, 2, 2), MoreRules())


def test_an_axis_that_a_variant_does_without_must_be_named_unused():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    rotary = boxed_params(dataclasses.replace(_MODEL, position="rotary"))
    every = r"\['distance', 'lora_rank', 'position'\]"
    with pytest.raises(ValueError, match=f"match no parameter: {every}"):
        shardings(rotary, mesh, Rules())
    with pytest.raises(ValueError, match=r"match no parameter: \['position'\]"):
        shardings(rotary, mesh, Rules(), unused={"mlp", "distance", "lora_rank"})
    unused = {"position", "distance", "lora_rank"}
    placed = shardings(rotary, mesh, Rules(), unused=unused)
    default = shardings(boxed_params(), mesh, Rules(), unused=unused)  # used all the same
    assert default.pop("wpe").spec == PartitionSpec(None, "fsdp")
    assert placed == default


def test_a_table_of_distances_is_divided_by_distances_and_heads():
    relative = dataclasses.replace(_MODEL, position="relative")
    table = specs((2, 2, 2), model=relative)["h/attn/relative"]
    assert table == PartitionSpec(None, "fsdp", "tensor", None)
    odd = dataclasses.replace(relative, context_length=15)
    with pytest.raises(UserError, match=r"mesh\.fsdp=2 does not divide axis 'distance' of h/attn/"):
        specs((2, 2, 2), model=odd)


def test_two_names_on_one_mesh_axis_raise():
    with pytest.raises(ValueError, match="'tensor' twice"):
        specs((2, 2, 2), Rules(embed="tensor"))
    with pytest.raises(ValueError, match="'fsdp' twice"):
        specs((2, 2, 2), Rules(mlp=("fsdp", "tensor")))


def test_a_dimension_the_mesh_does_not_divide_names_the_leaf_and_the_axis():
    two_heads = dataclasses.replace(_MODEL, num_heads=2)
    with pytest.raises(
        UserError, match=r"mesh\.tensor=4 .* axis 'heads' of .*c_attn/bias, which is 2;.*: 1x8x1 or"
    ) as caught:
        specs((2, 1, 4), model=two_heads)
    assert "\n" not in str(caught.value)


def test_rules_hold_only_where_they_are_entered():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    constrained = lambda x: layout.constrain(x, ("batch", "act_mlp"))  # noqa: E731
    x = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    assert "sharding_constraint" not in str(jax.make_jaxpr(constrained)(x))
    with sharding_context(mesh, Rules()):
        assert "sharding_constraint" in str(jax.make_jaxpr(lambda x: constrained(x))(x))


def _moved_activations(config):
    """Returns what the evaluation moves of a device's rows [B/4, T, D], and its permutes."""
    mesh = make_mesh(config.mesh)
    abstract = abstract_state(config, make_optimizer(config), mesh, Rules())
    batch_size = config.train.batch_size
    step = compile_eval_step(config, batch_size, mesh, Rules(), abstract.params)
    moves = re.findall(
        r"= (\S+) (all-gather|all-to-all|collective-permute)(?:-start)?\(", step.as_text()
    )
    assert moves  # the parameters of each layer, at least
    rows = f"[{batch_size // 4},{config.model.context_length},{config.model.d_model}]"
    return [move for move in moves if rows in move[0] or move[1] != "all-gather"]


def test_the_embedding_lookup_moves_weights_and_no_activations(monkeypatch):
    config = Config(
        model=_MODEL,
        compute=ComputeConfig(dtype="float32"),
        train=TrainConfig(batch_size=8),
        mesh=MeshConfig(2, 2, 2),
    )
    assert _moved_activations(config) == []
    monkeypatch.setattr(embedding, "gather", lambda table, axes, dtype: table.astype(dtype))
    assert _moved_activations(config) != []  # otherwise this test would see nothing
