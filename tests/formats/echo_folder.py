"""Builds a small folder in Hugging Face's format, of a model that echoes.

Its most probable next token is always the last one, so that a prompt of an end of text shows
whether generation stops there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

_PLAIN = Path(__file__).parent / "fixtures" / "huggingface" / "plain"
_WIDTH = 16


class Folder:
    """Collects the files of one folder; a value of None stands for no such file or key."""

    def __init__(self) -> None:
        """Starts with a plain model of 300 tokens, of which id 0 is the end of text."""
        content = json.loads((_PLAIN / "tokenizer.json").read_text(encoding="utf-8"))
        merges = ["#version: 0.2", *(" ".join(pair) for pair in content["model"]["merges"])]
        self.config: dict[str, Any] = {
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 1, "n_head": 2,
            "n_embd": _WIDTH, "n_positions": 16, "vocab_size": 300, "bos_token_id": 0,
            "eos_token_id": 0,
        }  # fmt: skip
        self.files: dict[str, Any] = {
            "tokenizer.json": content,
            "vocab.json": content["model"]["vocab"],
            "merges.txt": "\n".join(merges) + "\n",
            "tokenizer_config.json": {
                "tokenizer_class": "GPT2Tokenizer",
                "bos_token": "<|endoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
            },
        }

    def keep(self, *names: str) -> None:
        """Removes the files of the tokenizer that are not named."""
        self.files = {name: content for name, content in self.files.items() if name in names}

    def add(self, *texts: str) -> None:
        """Adds special tokens to tokenizer.json, each with a row of the model."""
        for text in texts:
            entry = self.files["tokenizer.json"]["added_tokens"][0]
            token = self.config["vocab_size"]
            self.files["tokenizer.json"]["added_tokens"].append(
                entry | {"id": token, "content": text}
            )
            self.config["vocab_size"] = token + 1

    def write(self, path: Path) -> None:
        """Writes config.json, the weights and the other files."""
        path.mkdir(parents=True, exist_ok=True)
        save_file(_echo(self.config["vocab_size"]), path / "model.safetensors", {"format": "pt"})
        for name, content in {"config.json": self.config, **self.files}.items():
            if isinstance(content, bytes):
                (path / name).write_bytes(content)
            elif isinstance(content, str):
                (path / name).write_text(content, encoding="utf-8")
            else:
                (path / name).write_text(json.dumps(content), encoding="utf-8")


def _echo(rows: int) -> dict[str, np.ndarray]:
    """Returns the tensors of a model of no block's effect: rows of equal length, mean zero."""
    wte = np.random.default_rng(0).normal(size=(rows, _WIDTH)).astype(np.float32)
    wte -= wte.mean(axis=1, keepdims=True)
    wte *= 3 / np.linalg.norm(wte, axis=1, keepdims=True)
    zeros = {
        "wpe.weight": (16, _WIDTH),
        "ln_f.bias": (_WIDTH,),
        "h.0.ln_1.bias": (_WIDTH,),
        "h.0.ln_2.bias": (_WIDTH,),
        "h.0.attn.c_attn.weight": (_WIDTH, 3 * _WIDTH),
        "h.0.attn.c_attn.bias": (3 * _WIDTH,),
        "h.0.attn.c_proj.weight": (_WIDTH, _WIDTH),
        "h.0.attn.c_proj.bias": (_WIDTH,),
        "h.0.mlp.c_fc.weight": (_WIDTH, 4 * _WIDTH),
        "h.0.mlp.c_fc.bias": (4 * _WIDTH,),
        "h.0.mlp.c_proj.weight": (4 * _WIDTH, _WIDTH),
        "h.0.mlp.c_proj.bias": (_WIDTH,),
    }
    tensors = {name: np.zeros(shape, np.float32) for name, shape in zeros.items()}
    ones = ("ln_f.weight", "h.0.ln_1.weight", "h.0.ln_2.weight")
    tensors |= {name: np.ones(_WIDTH, np.float32) for name in ones}
    return {
        f"transformer.{name}": tensor for name, tensor in (tensors | {"wte.weight": wte}).items()
    }
