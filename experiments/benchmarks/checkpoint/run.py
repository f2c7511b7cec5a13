"""Measures what the manifest of a checkpoint costs: saving and restoring with and without it.

    python experiments/benchmarks/checkpoint/run.py --config configs/gpt2_small.py --folder /tmp

It makes a training state of the config's shapes (random parameters and moments, float32), and in
each round saves and restores it with and without its sha256, in turn, in a temporary folder.
`blocked` is the time that training waits; `committed` is the time until the checkpoint is complete.
The medians and their ratios are written to results/<config>.json. Files are read just after they
are written, so they may come from the page cache.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gpt2_jax import config as config_lib
from gpt2_jax.checkpoint import commit
from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import TrainState, abstract_state, without_params


def main() -> None:
    """Runs the rounds and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument(
        "--folder", type=Path, required=True, help="a folder on the disk to measure"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--lean", action="store_true", help="use less memory in addition to the state"
    )
    args = parser.parse_args()
    config = config_lib.load_config(args.config)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    abstract = abstract_state(config, make_optimizer(config), mesh, Rules())
    state = _random(abstract)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    times: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for manifest in (True, False):
            state, seconds = _round(args.folder, state, abstract, manifest, args.lean)
            for name, value in seconds.items():
                times.setdefault(f"{name} {'with' if manifest else 'without'}", []).append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        name: medians[f"{name} with"] / medians[f"{name} without"]
        for name in ("blocked", "committed", "restored")
    }
    report = {
        "command": f"run.py --config {args.config.name} --rounds {args.rounds}"
        + " --lean" * args.lean,
        "bytes": size,
        "cores": os.cpu_count(),
        "median_seconds": {name: round(value, 3) for name, value in medians.items()},
        "with_over_without": {name: round(value, 3) for name, value in ratios.items()},
    }
    results = Path(__file__).parent / "results" / f"{args.config.stem}.json"
    results.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def _random(abstract: TrainState) -> TrainState:
    draw = np.random.default_rng(0)

    def leaf(shape: jax.ShapeDtypeStruct) -> jax.Array:
        if shape.dtype == np.float32:
            values = draw.standard_normal(shape.shape, np.float32)
        else:
            values = np.zeros(shape.shape, shape.dtype)
        return jax.device_put(values, shape.sharding)

    return jax.tree.map(leaf, abstract)


def _round(
    folder: Path, state: TrainState, abstract: TrainState, manifest: bool, lean: bool
) -> tuple[TrainState, dict[str, float]]:
    """Saves and restores the state; returns it and the seconds of both."""
    with contextlib.ExitStack() as stack:
        workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        if not manifest:
            written = commit.write_manifest
            stack.callback(setattr, commit, "write_manifest", written)
            commit.write_manifest = lambda folder, step: None
        store = CheckpointStore(workdir / "checkpoints", lean=lean)
        stack.callback(store.close)
        began = time.perf_counter()
        store.save(1, state.params, without_params(state), {})
        blocked = time.perf_counter() - began
        store.wait()
        committed = time.perf_counter() - began
        os.sync()

        jax.tree.map(lambda leaf: leaf.delete(), state)  # memory may not suffice for two
        restore = functools.partial(store.restore, 1, abstract.params, without_params(abstract))
        check: Callable[[], Any] = store.newest_good if manifest else store.steps
        began = time.perf_counter()
        check()
        params, rest = jax.block_until_ready(restore())
        restored = time.perf_counter() - began
    state = abstract._replace(params=params, **rest)
    return state, {"blocked": blocked, "committed": committed, "restored": restored}


if __name__ == "__main__":
    main()
