"""Starts a worker: `python -m experiments.benchmarks.workers PROGRAM KIND`.

Imports of JAX and torch happen here and nowhere above: the driver and its report need neither, and
no interpreter needs both.
"""

from __future__ import annotations

import importlib
import sys

from experiments.benchmarks.workers.conversation import converse

MODULES = {
    ("jax", "inputs"): "jax_inputs",
    ("jax", "ceilings"): "jax_ceilings",
    ("jax", "train"): "jax_training",
    ("jax", "scaling"): "jax_training",
    ("jax", "decode"): "jax_decoding",
    ("jax", "score"): "jax_scoring",
    ("jax", "load"): "jax_loading",
    ("torch", "ceilings"): "torch_ceilings",
    ("torch", "train"): "torch_training",
    ("torch", "scaling"): "torch_training",
    ("torch", "decode"): "torch_decoding",
    ("torch", "score"): "torch_scoring",
    ("torch", "load"): "torch_loading",
    ("ctranslate2", "decode"): "ctranslate2_decoding",
    ("command", "command"): "command",
}
"""(program, kind) -> the module whose `prepare(task)` returns what is measured."""


def main(program: str, kind: str) -> None:
    """Answers requests for a task of that kind until standard input ends."""
    if program == "jax":  # as `gpt2-jax train` does it
        from gpt2_jax.parallel.malloc import keep_freed_memory

        keep_freed_memory()
    name = MODULES[program, kind]
    converse(importlib.import_module(f"experiments.benchmarks.workers.{name}").prepare)


if __name__ == "__main__":
    main(*sys.argv[1:])
