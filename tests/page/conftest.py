"""One server on a tiny model of bytes and one browser for all tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.formats.load import Model
from gpt2_jax.serve.models import Limits
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.page.window import Window
from tests.serve.serving import SLOTS, Client, serving, tiny_model

CONTEXT = 1024
"""As GPT-2 has: more than a text may have whose matrices are given out whole."""


@pytest.fixture(scope="session")
def model() -> Model:
    return tiny_model(ByteTokenizer(), num_layers=2, context_length=CONTEXT)


@pytest.fixture(scope="session")
def python(model: Model) -> LanguageModel:
    """The model as the Python API has it: what the page must show."""
    return LanguageModel(model)


@pytest.fixture(scope="session")
def served(model: Model) -> Iterator[Client]:
    # Only the engine's panel shows the engine: what it has room for is soon compiled.
    with serving(model, limits=Limits(num_slots=SLOTS, max_length=32)) as client:
        yield client


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def window(browser: Any, served: Client) -> Iterator[Window]:
    """The page in a window of its own, after its first run; it may report no error."""
    with Window.opened(browser, served.port) as found:
        yield found
    assert not found.errors
