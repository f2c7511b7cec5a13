"""Writes folders as OpenAI's release has them, with GPT-2's vocabulary, at any size.

`test_openai.py` compares what is written here with files that TensorFlow wrote.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gpt2_jax.formats.tensor_bundle import masked_crc32c
from gpt2_jax.tokenizers import vocabulary

_DT_FLOAT = 1


def write_openai_folder(folder: Path, *, d_model: int = 16, seed: int = 0) -> Path:
    """Writes a model of one layer, two heads and 32 positions, and returns the folder."""
    rng = np.random.default_rng(seed)
    hparams = {"n_vocab": 50257, "n_ctx": 32, "n_embd": d_model, "n_head": 2, "n_layer": 1}
    D = d_model
    shapes = {"model/wte": (hparams["n_vocab"], D), "model/wpe": (hparams["n_ctx"], D)}
    sizes = {"attn/c_attn": (D, 3 * D), "attn/c_proj": (D, D)}
    sizes |= {"mlp/c_fc": (D, 4 * D), "mlp/c_proj": (4 * D, D)}
    for name, (inputs, outputs) in sizes.items():
        shapes |= {
            f"model/h0/{name}/w": (1, inputs, outputs),
            f"model/h0/{name}/b": (outputs,),
        }
    variables = {name: rng.normal(0, 0.02, shape) for name, shape in shapes.items()}
    for norm in ("model/ln_f", "model/h0/ln_1", "model/h0/ln_2"):
        variables |= {f"{norm}/g": np.ones(D), f"{norm}/b": np.zeros(D)}
    folder.mkdir(parents=True)
    (folder / "hparams.json").write_text(json.dumps(hparams) + "\n", encoding="utf-8")
    for name in ("encoder.json", "vocab.bpe"):
        (folder / name).write_bytes(vocabulary.gpt2_file(name))
    write_bundle(folder / "model.ckpt", variables)
    return folder


def write_bundle(prefix: Path, variables: Mapping[str, np.ndarray]) -> None:
    """Writes variables, as float32, to PREFIX.index and PREFIX.data-00000-of-00001."""
    data = b""
    records = [(b"", field(1, 1))]  # one shard
    for name in sorted(variables):
        array = np.asarray(variables[name], "<f4")
        dims = b"".join(field(2, field(1, size)) for size in array.shape)
        position = field(4, len(data)) + field(5, array.nbytes)
        records.append((name.encode(), field(1, _DT_FLOAT) + field(2, dims) + position))
        data += array.tobytes()
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    Path(f"{prefix}.index").write_bytes(index_file(block(records)))


def varint(number: int) -> bytes:
    more = b""
    while number >= 0x80:
        more, number = more + bytes([number & 0x7F | 0x80]), number >> 7
    return more + bytes([number])


def block(records: list[tuple[bytes, bytes]]) -> bytes:
    """Returns a block of a LevelDB table with its trailer, without shared prefixes of keys."""
    entries = b"".join(
        b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in records
    )
    return sealed(entries + struct.pack("<II", 0, 1))


def sealed(block: bytes) -> bytes:
    return block + b"\0" + struct.pack("<I", masked_crc32c(block + b"\0"))


def index_file(data: bytes, footer: bytes = b"") -> bytes:
    """Returns a table of one block of data, with the right checksums."""
    handle = varint(0) + varint(len(data) - 5)
    index = block([(b"~", handle)])
    where = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + (footer or where.ljust(40, b"\0")) + struct.pack("<Q", 0xDB4775248B80FB57)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value
