"""Every file in configs/: its values against a golden file, its docstring, and its shapes.

After a change to a config or a default: GPT2_JAX_WRITE_GOLDEN=1 pytest tests/test_configs.py, then
look at the diff of tests/golden/.
"""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from gpt2_jax.config import Config, load_config, to_dict
from gpt2_jax.data.token_sets import resolve_vocab_size
from gpt2_jax.model.build import build_model
from gpt2_jax.model.flops import num_params
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.trainable import trained_params
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.tokenizers.tokenizer import FIXED_CHOICES, make_tokenizer
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state

_ROOT = Path(__file__).parents[1]
_GOLDEN = Path(__file__).parent / "golden"
_CONFIGS = sorted(path.stem for path in (_ROOT / "configs").glob("*.py"))
_PARAMETERS = {
    "gpt2_small": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
}

each_config = pytest.mark.parametrize("name", _CONFIGS)


def _path(name: str) -> Path:
    return _ROOT / "configs" / f"{name}.py"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in a folder without data, so that a tokenizer's name decides the vocabulary."""
    monkeypatch.chdir(tmp_path)


def _load(name: str) -> Config:
    return resolve_vocab_size(load_config(_path(name)))


def test_the_shipped_configs_are_there() -> None:
    assert {"quickstart", "shakespeare_char", *_PARAMETERS} <= set(_CONFIGS)


@each_config
def test_values_are_those_of_the_golden_file(name: str) -> None:
    golden = _GOLDEN / f"{name}.json"
    values = to_dict(_load(name))
    if os.environ.get("GPT2_JAX_WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    assert golden.is_file(), f"{golden} is missing; see this file's docstring"
    assert values == json.loads(golden.read_text(encoding="utf-8")), "see this file's docstring"


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in _GOLDEN.glob("*.json")} <= set(_CONFIGS)


@each_config
def test_the_docstring_says_command_hardware_time_and_loss(name: str) -> None:
    docstring = ast.get_docstring(ast.parse(_path(name).read_text(encoding="utf-8"))) or ""
    for heading in ("Command:", "Hardware:", "Time:", "Expected loss:"):
        _, found, after = docstring.partition(f"\n{heading}")
        assert found, f"{name}: no {heading}"
        assert after.strip(), f"{name}: nothing after {heading}"
    assert f"gpt2-jax train --config configs/{name}.py --workdir " in docstring
    # Placeholders in capitals are notes to ourselves.
    for note in ("MINUTES", "LOSS", "HOURS", "TODO", "TBD"):
        assert note not in docstring, f"{name}: {note} is still to be filled in"


@each_config
def test_the_vocabulary_is_the_tokenizers(name: str) -> None:
    config = _load(name)
    if config.data.tokenizer in FIXED_CHOICES:  # otherwise it is the corpus's
        assert config.model.vocab_size == make_tokenizer(config.data.tokenizer).vocab_size


@each_config
def test_the_file_is_short_and_imports_nothing_beside_it(name: str) -> None:
    text = _path(name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 50
    tree = ast.parse(text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["from gpt2_jax.config import default"]


@each_config
def test_shapes_trace_without_an_array(name: str) -> None:
    """Init, logits and the whole training state, from shapes alone: XL included."""
    config = _load(name)
    model = build_model(config.model, config.compute)
    tokens = jax.ShapeDtypeStruct((1, config.model.context_length), jnp.int32)
    logits = jax.eval_shape(
        lambda key, tokens: model.init_with_output(key, tokens, method=GPT2.logits)[0][0],
        jax.random.key(0),
        tokens,
    )
    assert logits.shape == (1, config.model.context_length, config.model.vocab_size)
    assert logits.dtype == jnp.float32

    mesh = mesh_lib.make_mesh(config.mesh, jax.devices()[:1])
    state = abstract_state(config, make_optimizer(config), mesh, Rules())
    leaves = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    sizes = [leaf.size for leaf in jax.tree.leaves(state.params)]
    assert sum(sizes) == num_params(config.model, padded=True)
    # Adam's two moments of what is trained, of which muon has one for matrices, and the counts.
    held = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
    trained = sum(leaf.size for leaf in jax.tree.leaves(trained_params(config, state.params)))
    least = 1 if config.optimizer.name == "muon" else 2
    assert least * trained <= held <= 2 * trained + 8


@pytest.mark.parametrize("name", _PARAMETERS)
def test_gpt2_has_its_number_of_parameters(name: str) -> None:
    assert num_params(_load(name).model) == _PARAMETERS[name]
