"""`train.init_from`: which models a run may start from, and with which rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gpt2_jax.config import Config
from gpt2_jax.errors import UserError
from gpt2_jax.formats import huggingface
from gpt2_jax.model.build import abstract_params
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.training.initial import read_initial
from gpt2_jax.training.state import init_params
from tests.inference.tiny import make_run, noisy_params, tiny_config

_BYTE = ByteTokenizer()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("initial") / "run"))


def _config(resize: bool = False, **model: Any) -> Config:
    config = tiny_config(**model)
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, init_resize=resize, seed=3)
    )


def _read(run: str, config: Config, tokenizer: Tokenizer = _BYTE) -> Any:
    return read_initial(config, run, tokenizer, abstract_params(config.model))


def test_parameters_are_those_of_the_model(run: str) -> None:
    jax.tree.map(np.testing.assert_array_equal, _read(run, _config()), noisy_params(tiny_config()))


def test_a_model_in_hugging_faces_format_will_do(run: str, tmp_path: Path) -> None:
    params = noisy_params(tiny_config())
    huggingface.write(tmp_path, tiny_config().model, params, _BYTE)
    # Other padding is no other size.
    config = _config(vocab_multiple=64)
    read = _read(str(tmp_path), config)
    assert read["wte"].shape == (320, 32)
    np.testing.assert_array_equal(read["wte"][:257], params["wte"][:257])
    jax.tree.map(np.testing.assert_array_equal, read["h"], params["h"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 4}, "num_layers is 2 there and 4 in the config"),
        (
            {"d_model": 64, "num_heads": 8},
            "num_heads is 4 there and 8 in the config, d_model is 32",
        ),
        ({"num_heads": 2}, "num_heads"),
        ({"activation": "relu"}, "activation is gelu_new there and relu in the config"),
        ({"mlp_dim": 64}, "mlp_dim is 128 there and 64 in the config"),
        ({"position": "rotary"}, "position is learned there and rotary in the config"),
        ({"norm": "rms"}, "norm is layer there and rms in the config"),
        ({"tie_embeddings": False}, "tie_embeddings"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
    ],
)
@pytest.mark.parametrize("resize", [False, True])
def test_another_architecture_is_refused(
    run: str, changes: Any, message: str, resize: bool
) -> None:
    with pytest.raises(UserError) as error:
        _read(run, _config(resize, **changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_another_size_is_refused_unless_resizing_is_asked_for(run: str) -> None:
    with pytest.raises(
        UserError, match=r"context_length is 32 there and 16 in the config.*init_resize"
    ):
        _read(run, _config(context_length=16))
    with pytest.raises(
        UserError, match=r"vocab_size is 257 there and 300 in the config.*init_resize"
    ):
        _read(run, _config(vocab_size=300))


@pytest.mark.parametrize(
    ("context", "rows"), [(16, 300), pytest.param(48, 200, marks=pytest.mark.slow)]
)
def test_rows_are_cropped_or_grown_as_a_fresh_run_has_them(
    run: str, context: int, rows: int
) -> None:
    config = _config(True, context_length=context, vocab_size=rows)
    params = _read(run, config)
    fresh = init_params(config, abstract_params(config.model))
    theirs = noisy_params(tiny_config())
    for name, both in (("wpe", min(context, 32)), ("wte", min(rows, 257))):
        assert params[name].shape == fresh[name].shape
        np.testing.assert_array_equal(params[name][:both], theirs[name][:both])
        np.testing.assert_array_equal(params[name][both:], fresh[name][both:])
    jax.tree.map(np.testing.assert_array_equal, params["h"], theirs["h"])
    jax.tree.map(np.testing.assert_array_equal, params["ln_f"], theirs["ln_f"])


@pytest.mark.slow
@pytest.mark.parametrize("context", [16, 48])
def test_a_table_of_distances_is_resized_in_every_layer(tmp_path: Path, context: int) -> None:
    there = tiny_config(position="relative")
    run = str(make_run(tmp_path / "run", there))
    config = _config(True, position="relative", context_length=context)
    table = _read(run, config)["h"]["attn"]["relative"]
    theirs = noisy_params(there)["h"]["attn"]["relative"]
    fresh = init_params(config, abstract_params(config.model))["h"]["attn"]["relative"]
    both = min(context, 32)
    assert table.shape == (2, context, 4, 8)
    np.testing.assert_array_equal(table[:, :both], theirs[:, :both])
    np.testing.assert_array_equal(table[:, both:], fresh[:, both:])


@pytest.mark.slow
def test_an_untied_head_is_resized_like_the_table(tmp_path: Path) -> None:
    there = tiny_config(tie_embeddings=False)
    run = str(make_run(tmp_path / "run", there))
    config = _config(True, tie_embeddings=False, vocab_size=300)
    params, theirs = _read(run, config), noisy_params(there)
    np.testing.assert_array_equal(params["lm_head"][:257], theirs["lm_head"][:257])
    assert params["lm_head"].shape == (304, 32)
    assert np.std(params["lm_head"][257:]) == pytest.approx(0.02, rel=0.2)


def test_tokens_must_mean_the_same_text(run: str) -> None:
    config = _config(True, vocab_size=3)
    with pytest.raises(UserError, match="another tokenizer"):
        _read(run, config, CharTokenizer("abc"))
    # The first 257 of GPT-2's are not the bytes in order.
    with pytest.raises(UserError, match="another tokenizer"):
        _read(run, _config(True, vocab_size=50257), GPT2Tokenizer())
    # More rows of the same tokens are.
    _read(run, _config())
