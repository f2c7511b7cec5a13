"""Reads and edits the models that transformers has written for the tests of its format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.formats import huggingface
from gpt2_jax.model.build import abstract_params

FIXTURES = Path(__file__).parent / "fixtures" / "huggingface"


def read_model(folder: Path) -> tuple[ModelConfig, Any]:
    """Returns the config and the parameters of the model in a folder."""
    config = huggingface.read_config(folder).model
    return config, huggingface.read_params(folder, config, abstract_params(config))


def line_of(error: pytest.ExceptionInfo[UserError]) -> str:
    """Returns the message of an error, which must be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def edit_json(path: Path, **changes: Any) -> None:
    """Sets these keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")
