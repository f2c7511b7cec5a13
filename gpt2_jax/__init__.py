"""GPT-2 in JAX/Flax linen: exact, fast and restartable, from a laptop to a TPU pod."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2_jax.api import LanguageModel, SamplingOptions, load

__version__ = "0.1.0"
_API = ("LanguageModel", "SamplingOptions", "load")
__all__ = ["LanguageModel", "SamplingOptions", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # The API pulls in JAX, which takes a second: neither `import gpt2_jax` nor `--help` waits.
    if name in _API:
        return getattr(importlib.import_module("gpt2_jax.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
