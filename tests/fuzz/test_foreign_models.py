"""Tests damaged models of other programs: they are read or refused, without much memory."""

from __future__ import annotations

import functools
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax.config import ModelConfig
from gpt2_jax.formats import huggingface
from gpt2_jax.formats.load import load
from gpt2_jax.model.build import abstract_params
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.huggingface import read_tokenizer, write_tokenizer
from tests.fuzz.commands import cases
from tests.fuzz.damage import damaged, ends_well, other_json

_FIXTURES = Path(__file__).parents[1] / "formats" / "fixtures"
_PLAIN = _FIXTURES / "huggingface" / "plain"
_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model-00003-of-00003.safetensors"


@pytest.fixture(scope="module", autouse=True)
def _threads_of_xla() -> None:
    """Starts them while there is enough memory."""
    abstract_params(ModelConfig(vocab_size=8))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(_PLAIN, tmp_path_factory.mktemp("fuzz") / "plain")


@pytest.fixture(scope="module")
def openai(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(_FIXTURES / "openai", tmp_path_factory.mktemp("fuzz") / "openai")
    values = json.loads((folder / "hparams.json").read_text()) | {"n_vocab": 50257}
    (folder / "hparams.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def read_plain(plain: Path) -> Callable[[], Any]:
    """Reads the parameters, without the tokenizer that takes most of the time to load."""
    config = huggingface.read_config(plain).model
    abstract = abstract_params(config)
    return lambda: huggingface.read_params(plain, config, abstract)


def _whole(folder: Path) -> Callable[[], Any]:
    return lambda: load(folder)


_CONFIG = json.loads((_PLAIN / "config.json").read_bytes())
# The keys that are read, so that most changes have an effect.
_CONFIG_READ = {
    key: value
    for key, value in _CONFIG.items()
    if key.startswith(("n_", "model", "vocab", "scale", "tie", "act", "eos", "resid", "layer"))
}


@cases(150)
@given(content=other_json(_CONFIG_READ) | damaged(json.dumps(_CONFIG_READ).encode()))
def test_any_config_of_hugging_face(plain: Path, content: bytes) -> None:
    ends_well(plain / "config.json", content, _whole(plain))


_SIZES_OF = ["n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "n_inner"]
_HUGE = [0, 1, 2, 5, 32, 40, 10**7, 2**31 - 128, 2**31 - 1, 2**31, 2**63, 10**30]


@cases(60)
@given(sizes=st.dictionaries(st.sampled_from(_SIZES_OF), st.sampled_from(_HUGE), min_size=1))
def test_any_sizes_in_a_config_of_hugging_face(plain: Path, sizes: dict[str, int]) -> None:
    ends_well(plain / "config.json", json.dumps(_CONFIG | sizes).encode(), _whole(plain))


@cases(150)
@given(
    content=other_json(json.loads((_PLAIN / _INDEX).read_bytes()))
    | damaged((_PLAIN / _INDEX).read_bytes())
)
def test_any_index_of_weights(plain: Path, read_plain: Any, content: bytes) -> None:
    ends_well(plain / _INDEX, content, read_plain)


_SAFETENSORS = (_PLAIN / _WEIGHTS).read_bytes()
(_HEADER_BYTES,) = struct.unpack("<Q", _SAFETENSORS[:8])
_HEADER, _TENSORS = _SAFETENSORS[8 : 8 + _HEADER_BYTES], _SAFETENSORS[8 + _HEADER_BYTES :]
_SIZES = st.sampled_from([0, 1, _HEADER_BYTES + 1, 10**8, 2**31, 2**63, 2**64 - 1])


@cases(300)
@given(
    header=other_json(json.loads(_HEADER)) | damaged(_HEADER),
    size=st.none() | _SIZES,
    tensors=st.just(_TENSORS) | st.sampled_from([0, 1, 1000]).map(lambda end: _TENSORS[:end]),
)
def test_any_header_of_safetensors(
    plain: Path, read_plain: Any, header: bytes, size: int | None, tensors: bytes
) -> None:
    start = struct.pack("<Q", len(header) if size is None else size)
    ends_well(plain / _WEIGHTS, start + header + tensors, read_plain)


@cases(100)
@given(content=damaged(_SAFETENSORS))
def test_any_damage_of_safetensors(plain: Path, read_plain: Any, content: bytes) -> None:
    ends_well(plain / _WEIGHTS, content, read_plain)


_TOKENIZER = (_PLAIN / "tokenizer.json").read_bytes()
_ROWS = st.sampled_from([300, 300, 300, 2**31 - 1])


@cases(200)
@given(
    content=other_json(json.loads(_TOKENIZER)) | damaged(_TOKENIZER),
    rows=_ROWS,
    eos=st.sampled_from([0, None, "a", [0, 1], {}, -1, 2**64]),
)
def test_any_tokenizer(plain: Path, content: bytes, rows: int, eos: Any) -> None:
    ends_well(plain / "tokenizer.json", content, lambda: read_tokenizer(plain, rows, eos))


_SETTINGS = {
    "tokenizer_class": "GPT2Tokenizer",
    "eos_token": "<|endoftext|>",
    "pad_token": {"content": "<pad>", "special": True},
    "additional_special_tokens": ["<a>"],
    "added_tokens_decoder": {"300": {"content": "<pad>", "special": True}},
    "eos_token_id": [0, 1],
}
_BESIDE = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
]


@pytest.fixture(scope="module")
def with_settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(_PLAIN, tmp_path_factory.mktemp("settings") / "plain")
    for name in _BESIDE:
        (folder / name).write_text("{}")
    return folder


@cases(60)
@given(name=st.sampled_from(_BESIDE), content=other_json(_SETTINGS))
def test_any_file_beside_a_tokenizer(with_settings: Path, name: str, content: bytes) -> None:
    config = huggingface.read_config(with_settings)
    read = functools.partial(huggingface.read_model_tokenizer, with_settings, config)
    ends_well(with_settings / name, content, read)


_VOCABULARY: dict[str, Any] = json.loads(_TOKENIZER)["model"]["vocab"]
_IDS = (-1, 0, 1, 5, 299, 300, 2**31, 2**63, 10**30, True, 1.0, None, "a", [], {})


@cases(100)
@given(ids=st.dictionaries(st.sampled_from([*_VOCABULARY]), st.sampled_from(_IDS), min_size=1))
def test_any_ids_of_tokens(plain: Path, ids: dict[str, Any]) -> None:
    content = json.loads(_TOKENIZER)
    content["model"]["vocab"] |= ids
    path = plain / "tokenizer.json"
    ends_well(path, json.dumps(content).encode(), lambda: read_tokenizer(plain, 300, 0))


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write_tokenizer(CharTokenizer("abc"), folder, 16)
    return folder


@cases(100)
@given(data=st.data(), rows=st.sampled_from([3, 3, 3, 2**31 - 1]))
def test_any_tokenizer_of_characters(characters: Path, data: st.DataObject, rows: int) -> None:
    path = characters / "tokenizer.json"
    content = path.read_bytes()
    content = data.draw(other_json(json.loads(content)) | damaged(content))
    ends_well(path, content, lambda: read_tokenizer(characters, rows, None))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a tokenizer of GPT-2's two files, with the tokens of `plain`."""
    folder = tmp_path_factory.mktemp("fuzz")
    model = json.loads(_TOKENIZER)["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(" ".join(merge) for merge in model["merges"]))
    return folder


@cases(100)
@given(data=st.data(), rows=_ROWS)
def test_any_pair_of_tokenizer_files(pair: Path, data: st.DataObject, rows: int) -> None:
    path = pair / data.draw(st.sampled_from(["vocab.json", "merges.txt"]))
    content = path.read_bytes()
    change = damaged(content)
    if path.suffix == ".json":
        change |= other_json(json.loads(content))
    ends_well(path, data.draw(change), lambda: read_tokenizer(pair, rows, 0))


_HPARAMS = {"n_vocab": 50257, "n_ctx": 16, "n_embd": 24, "n_head": 3, "n_layer": 2}


@cases(100)
@given(content=other_json(_HPARAMS) | damaged(json.dumps(_HPARAMS).encode()))
def test_any_hyperparameters_of_openai(openai: Path, content: bytes) -> None:
    ends_well(openai / "hparams.json", content, _whole(openai))
