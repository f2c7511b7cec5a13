"""Gives JAX's options of its compilation cache back as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from gpt2_jax.parallel.compilation_cache import jax_cache

_OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_enable_xla_caches",
    "jax_enable_compilation_cache",
)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restores, after the block, what commands change in the process that runs them."""
    values = {name: jax.config.values[name] for name in _OPTIONS}
    get_file_cache = jax_cache.get_file_cache
    try:
        yield
    finally:
        jax_cache.get_file_cache = get_file_cache
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
