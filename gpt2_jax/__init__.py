"""GPT-2 in JAX/Flax linen: exact, fast and restartable, from a laptop to a TPU pod."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2_jax.api import LanguageModel, SamplingOptions, load
    from gpt2_jax.experiment import evaluate, train

__version__ = "0.1.0"
# The module that each name is imported from when it is first used. These modules import JAX, which
# takes a second that neither `import gpt2_jax` nor `--help` should wait for.
_LAZY = {
    "LanguageModel": "gpt2_jax.api",
    "SamplingOptions": "gpt2_jax.api",
    "load": "gpt2_jax.api",
    "evaluate": "gpt2_jax.experiment",
    "train": "gpt2_jax.experiment",
}
__all__ = ["LanguageModel", "SamplingOptions", "__version__", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
