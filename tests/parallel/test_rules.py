from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from gpt2_jax.config import MeshConfig, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.model import gpt2
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, entered, shardings

_MODEL = ModelConfig(2, 4, 32, 16, vocab_size=61, vocab_multiple=8, dtype="float32")


def boxed_params(model=_MODEL):
    tokens = jax.ShapeDtypeStruct((1, 16), jnp.int32)
    return jax.eval_shape(gpt2.GPT2(model).init, jax.random.key(0), tokens)["params"]


def specs(axes, rules=Rules(), model=_MODEL):  # noqa: B008
    tree = shardings(boxed_params(model), make_mesh(MeshConfig(*axes)), rules)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(e.key for e in path): leaf.spec for path, leaf in leaves}


def test_every_parameter_lies_as_the_rules_say():
    P = PartitionSpec
    assert specs((2, 2, 2)) == {
        "wte": P("tensor", "fsdp"),
        "wpe": P("tensor", "fsdp"),
        "h/ln_1/scale": P(None, "fsdp"),
        "h/ln_1/bias": P(None, "fsdp"),
        "h/attn/c_attn/kernel": P(None, "fsdp", None, "tensor", None),
        "h/attn/c_attn/bias": P(None, None, "tensor", None),
        "h/attn/c_proj/kernel": P(None, "tensor", None, "fsdp"),
        "h/attn/c_proj/bias": P(None, "fsdp"),
        "h/ln_2/scale": P(None, "fsdp"),
        "h/ln_2/bias": P(None, "fsdp"),
        "h/mlp/c_fc/kernel": P(None, "fsdp", "tensor"),
        "h/mlp/c_fc/bias": P(None, "tensor"),
        "h/mlp/c_proj/kernel": P(None, "tensor", "fsdp"),
        "h/mlp/c_proj/bias": P(None, "fsdp"),
        "ln_f/scale": P("fsdp"),
        "ln_f/bias": P("fsdp"),
    }


def test_a_name_without_a_rule_raises():
    with pytest.raises(ValueError, match="no sharding rule for logical axis 'embde'"):
        Rules().mesh_axes(PartitionSpec("vocab", "embde"))
    boxed = {"w": nn.LogicallyPartitioned(jax.ShapeDtypeStruct((8,), jnp.float32), ("embde",))}
    with pytest.raises(ValueError, match="embde"):
        shardings(boxed_params() | boxed, make_mesh(MeshConfig()), Rules())


def test_an_activation_without_a_rule_raises_while_tracing():
    with entered(make_mesh(MeshConfig()), Rules()), pytest.raises(ValueError, match="lenght"):
        jax.eval_shape(lambda x: gpt2.constrain(x, ("batch", "lenght")), jnp.zeros((8, 4)))


def test_a_rule_that_no_parameter_uses_raises():
    @dataclasses.dataclass(frozen=True)
    class MoreRules(Rules):
        experts: str | None = "tensor"

    with pytest.raises(ValueError, match=r"match no parameter: \['experts'\]"):
        specs((2, 2, 2), MoreRules())


def test_two_names_on_one_mesh_axis_raise():
    with pytest.raises(ValueError, match="'tensor' twice"):
        specs((2, 2, 2), Rules(embed="tensor"))
    with pytest.raises(ValueError, match="'fsdp' twice"):
        specs((2, 2, 2), Rules(mlp=("fsdp", "tensor")))


def test_a_dimension_the_mesh_does_not_divide_names_the_leaf_and_the_axis():
    two_heads = dataclasses.replace(_MODEL, num_heads=2)
    with pytest.raises(
        UserError, match=r"attn.*c_attn.*dimension of 2 that mesh tensor=4"
    ) as caught:
        specs((2, 1, 4), model=two_heads)
    assert "\n" not in str(caught.value)


def test_rules_hold_only_where_they_are_entered():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    constrained = lambda x: gpt2.constrain(x, ("batch", "act_mlp"))  # noqa: E731
    x = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    assert "sharding_constraint" not in str(jax.make_jaxpr(constrained)(x))
    with entered(mesh, Rules()):
        assert "sharding_constraint" in str(jax.make_jaxpr(lambda x: constrained(x))(x))


_COMPILE = """
import sys
import jax
from gpt2_jax.config import from_dict
from gpt2_jax.model import gpt2
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.train.optimizer import make_optimizer
from gpt2_jax.train.state import abstract_state
from gpt2_jax.train.step import compile_eval_step, compile_train_step

config = from_dict({
    "model": {"num_layers": 2, "num_heads": 4, "d_model": 32, "context_length": 16,
              "vocab_size": 61, "vocab_multiple": 8, "dtype": "float32"},
    "train": {"batch_size": 8, "total_steps": 10}, "schedule": {"warmup_steps": 1},
    "mesh": {"data": 2, "fsdp": 2, "tensor": 2},
})
mesh, rules, optimizer = make_mesh(config.mesh), Rules(), make_optimizer(config)
abstract = abstract_state(config, optimizer, mesh, rules)
compile_train_step(config, optimizer, mesh, rules, abstract)
print("=====", file=sys.stderr, flush=True)
constrain = gpt2.constrain
gpt2.constrain = lambda x, axes: x if axes == ("vocab", None) else constrain(x, axes)
compile_eval_step(config.model, 8, mesh, rules, abstract.params)
"""


def test_no_array_is_rematerialized_in_full_for_want_of_a_constraint():
    # In a process of its own: XLA reads once, as it loads, whether to warn.
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], env=env, capture_output=True, text=True, check=True
    )
    ours, without_the_table = done.stderr.split("=====")
    warning = "Involuntary full rematerialization"
    assert warning not in ours
    assert warning in without_the_table  # else this test sees nothing
