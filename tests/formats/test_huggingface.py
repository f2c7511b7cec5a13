"""Tests Hugging Face's format: results equal transformers' to rounding, and conversion is exact."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.formats import huggingface
from gpt2_jax.formats.load import load
from gpt2_jax.inference.generate import decode_params, generate_tokens
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import abstract_params, build_decoder, build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from tests.formats.huggingface_models import FIXTURES, edit_json, line_of, read_model
from tests.inference.tiny import noisy_params, tiny_config

_MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
_FLOAT32 = ComputeConfig(dtype="float32", loss_chunk=0)
_NAMES = ("plain", "inner_gelu", "unscaled_relu", "untied_by_layer")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURES / "inner_gelu", tmp_path / "model")


@pytest.mark.parametrize("name", _NAMES)
def test_logits_are_those_of_transformers(name: str) -> None:
    config, params = read_model(FIXTURES / name)
    expected = np.load(FIXTURES / f"{name}.npz")
    model = build_model(config, _FLOAT32)
    run = jax.jit(lambda p, t: model.apply({"params": p}, t, method=GPT2.logits)[0])
    logits = np.asarray(run(params, jnp.asarray(expected["ids"], jnp.int32)))
    error = np.abs(logits - expected["logits"]).max() / np.abs(expected["logits"]).max()
    assert error < 2e-6  # measured: at most 7e-7


@pytest.mark.parametrize(
    "name", ["plain", *(pytest.param(x, marks=pytest.mark.slow) for x in _NAMES if x != "plain")]
)
def test_greedy_tokens_of_a_ragged_batch_are_those_of_transformers(name: str) -> None:
    config, params = read_model(FIXTURES / name)
    expected = np.load(FIXTURES / f"{name}.npz")
    prompts = [expected["ids"][0, :length].tolist() for length in expected["lengths"]]
    decoder = build_decoder(config, _FLOAT32)
    tokens = generate_tokens(
        decoder,
        decode_params(decoder, params),
        prompts,
        expected["greedy"].shape[1],
        SamplingOptions(temperature=0),
    )
    np.testing.assert_array_equal(tokens, expected["greedy"])


@pytest.mark.parametrize("name", _NAMES)
def test_in_and_out_and_in_again_is_the_identity(name: str, tmp_path: Path) -> None:
    config, params = read_model(FIXTURES / name)
    (tmp_path / "out").mkdir()
    tokenizer = CharTokenizer("".join(map(chr, range(256, 256 + config.vocab_size))))
    huggingface.write(tmp_path / "out", config, params, tokenizer)
    again, same = read_model(tmp_path / "out")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, same, params)
    written = load_file(tmp_path / "out" / "model.safetensors")
    original: dict[str, np.ndarray] = {}
    for path in (FIXTURES / name).glob("*.safetensors"):
        tensors = {n.removeprefix("transformer."): x for n, x in load_file(path).items()}
        original |= {n: x for n, x in tensors.items() if not _MASK.fullmatch(n)}
    written = {n.removeprefix("transformer."): x for n, x in written.items()}
    assert written.keys() == original.keys()
    for tensor, x in original.items():
        assert written[tensor].dtype == x.dtype and written[tensor].tobytes() == x.tobytes()


def test_every_config_key_that_we_write_is_read_back(tmp_path: Path) -> None:
    model = dataclasses.replace(
        tiny_config().model,
        mlp_dim=24,
        activation="silu",
        layer_norm_epsilon=3e-4,
        dropout=0.25,
        scale_attn_weights=False,
        scale_attn_by_inverse_layer_idx=True,
        tie_embeddings=False,
    )
    (tmp_path / "out").mkdir()
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_params(model))
    huggingface.write(tmp_path / "out", model, params, ByteTokenizer())
    read = huggingface.read_config(tmp_path / "out").model
    for field in dataclasses.fields(ModelConfig):
        if field.name != "vocab_multiple":  # padding is not part of the format
            assert getattr(read, field.name) == getattr(model, field.name), field.name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 256


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("position", "rotary"),
        ("position", "alibi"),
        ("position", "relative"),
        ("attention_window", 8),
        ("x0_residual", True),
        ("value_residual", True),
        ("norm", "rms"),
        ("norm_position", "post"),
        ("bias", False),
        ("activation", "swiglu"),
        ("attention_scale", 0.5),
        ("qk_norm", "rms"),
        ("logit_softcap", 30.0),
        ("mup_base_width", 16),
    ],
)
def test_a_knob_that_gpt2_does_not_have_is_not_exported(
    tmp_path: Path, knob: str, value: object
) -> None:
    model = dataclasses.replace(tiny_config().model, **{knob: value})
    with pytest.raises(UserError) as error:
        huggingface.write(tmp_path, model, {}, ByteTokenizer())
    assert f"model.{knob}={value} is not part of Hugging Face's GPT-2" in line_of(error)
    assert not any(tmp_path.iterdir())


def test_a_run_of_ours_goes_out_and_comes_back_as_itself(tmp_path: Path) -> None:
    config, params = tiny_config().model, noisy_params(tiny_config())
    (tmp_path / "out").mkdir()
    huggingface.write(tmp_path / "out", config, params, ByteTokenizer())
    loaded = load(tmp_path / "out")
    assert loaded.tokenizer.to_dict() == ByteTokenizer().to_dict()
    assert loaded.config.data.tokenizer == "byte"
    assert loaded.step == 0
    rows = config.vocab_size  # the padding is not written, and zero when read
    for name, leaf in loaded.params.items():
        mine = params[name][:rows] if name == "wte" else params[name]
        theirs = leaf[:rows] if name == "wte" else leaf
        jax.tree.map(np.testing.assert_array_equal, theirs, mine)
    assert not np.any(loaded.params["wte"][rows:])


@pytest.mark.slow
def test_a_padded_table_of_gpt2_is_read_as_it_is(tmp_path: Path) -> None:
    """Reads such a table as nanoGPT exports it: GPT-2's vocabulary padded to 50,304 rows."""
    config = dataclasses.replace(tiny_config().model, vocab_size=50304)
    params = noisy_params(dataclasses.replace(tiny_config(), model=config))
    (tmp_path / "out").mkdir()
    huggingface.write(tmp_path / "out", config, params, GPT2Tokenizer(50304))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "out" / name).unlink()
    loaded = load(tmp_path / "out")
    assert loaded.config.model.vocab_size == loaded.tokenizer.vocab_size == 50304
    assert loaded.tokenizer.name == "gpt2"
    assert loaded.tokenizer.decode([15496, 50300]) == "Hello"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_without_loss(folder: Path, dtype: Any) -> None:
    path = folder / "model.safetensors"
    save_file({name: x.astype(dtype) for name, x in load_file(path).items()}, path)
    _, params = read_model(folder)
    expected = load_file(path)["transformer.ln_f.weight"].astype(np.float32)
    np.testing.assert_array_equal(params["ln_f"]["scale"], expected)


def test_other_names_of_config_keys_and_activations_are_known(folder: Path) -> None:
    before = huggingface.read_config(folder)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    renamed = {"n_layer": "num_hidden_layers", "n_positions": "max_position_embeddings"}
    path.write_text(json.dumps({renamed.get(key, key): x for key, x in values.items()}))
    assert huggingface.read_config(folder) == before
    for alias, name in {"gelu_pytorch_tanh": "gelu_new", "swish": "silu"}.items():
        edit_json(path, activation_function=alias)
        assert huggingface.read_config(folder).model.activation == name


def test_a_head_saved_beside_the_table_it_is_tied_to_is_no_other_head(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors["transformer.wte.weight"]}, path)
    read_model(folder)
    save_file(tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1}, path)
    with pytest.raises(UserError) as error:
        read_model(folder)
    assert "lm_head.weight differs from wte.weight" in line_of(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt_neo"}, "model_type='gpt_neo'"),
        ({"activation_function": "mish"}, "activation_function='mish' is not supported"),
        ({"activation_function": ["gelu"]}, "activation_function=\"['gelu']\" is not supported"),
        ({"add_cross_attention": True}, "add_cross_attention=True is not supported"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"n_layer": "three"}, "model.num_layers"),
        ({"n_layer": 0}, "model.num_layers"),
        ({"n_head": 5}, "must be a multiple of model.num_heads=5"),
        ({"n_positions": None}, "model.context_length"),
        ({"layer_norm_epsilon": "tiny"}, "model.layer_norm_epsilon"),
        ({"n_layer": 4}, "does not have the tensor h.3."),
        ({"n_layer": 10**9}, "tensors, too few for the 1000000000 layers of its config"),
        ({"n_layer": 10**400}, "model.num_layers must be at most"),
        ({"n_layer": 2}, "a tensor that GPT-2 does not have: h.2."),
        ({"n_embd": 48}, "has the shape"),
        ({"vocab_size": 62}, "wte.weight has the shape [61, 24], but its config requires [62, 24]"),
        ({"tie_word_embeddings": False}, "does not have the tensor lm_head.weight"),
    ],
    ids=str,
)
def test_a_config_is_done_or_refused_by_name(folder: Path, changes: Any, message: str) -> None:
    edit_json(folder / "config.json", **changes)
    with pytest.raises(UserError) as error:
        read_model(folder)
    assert message in line_of(error)
    assert str(folder) in line_of(error)
