"""Our training step, alone and in its parts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpt2_jax.config import Config, load_config
from gpt2_jax.data.batch import Batch
from gpt2_jax.data.loader import device_batches
from gpt2_jax.data.shard_file import TOKEN_DTYPE
from gpt2_jax.formats import huggingface
from gpt2_jax.model.build import build_model
from gpt2_jax.model.defaults import with_dtype
from gpt2_jax.parallel.compiler_options import compiler_options
from gpt2_jax.parallel.mesh import make_mesh
from gpt2_jax.parallel.rules import Rules, sharding_context
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.state import abstract_state, init_state
from gpt2_jax.training.step import (
    batch_sharding,
    compile_train_step,
    step_numbers,
    weighted_loss,
)
from gpt2_jax.training.update import Gradient, apply_update


@dataclasses.dataclass(frozen=True)
class _Recorded:
    """Makes batches of an array of windows, [steps, B, T + 1], over and over."""

    windows: np.ndarray
    weighted = False

    @property
    def batch_size(self) -> int:
        return self.windows.shape[1]

    @property
    def context_length(self) -> int:
        return self.windows.shape[2] - 1

    def rows(self, step: int, row_indices: Any) -> Batch:
        return Batch(self.windows[step % len(self.windows)][list(row_indices)])


class Training:
    """Trains a model step by step; its parts are timed without changing what a step does."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Compiles the step, reads the weights and makes one step."""
        self._config = config = _config(task)
        self._mesh, self._rules = make_mesh(config.mesh, jax.devices()[:1]), Rules()
        self._optimizer = make_optimizer(config)
        abstract = abstract_state(config, self._optimizer, self._mesh, self._rules)
        self._state = init_state(config, self._optimizer, abstract)._replace(
            params=huggingface.read_params(Path(task["weights"]), config.model, abstract.params)
        )
        source = _Recorded(np.load(task["tokens"]).astype(TOKEN_DTYPE))
        self._batches = device_batches(source, batch_sharding(self._mesh))
        self._numbers = step_numbers(config, self._mesh)
        began = time.perf_counter()
        self._step = compile_train_step(config, self._optimizer, self._mesh, self._rules, abstract)
        compiled = time.perf_counter() - began
        self._losses: list[float] = []
        self._steps(1)
        self.facts: dict[str, Any] = {
            "compile_seconds": compiled,
            "first_step_seconds": time.perf_counter() - began,
        }
        self._parts: dict[str, Callable[[int], float]] = {"step": self._steps}

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a part; after `step`, answers the losses that were not yet answered."""
        if part not in self._parts:
            self._parts[part] = self._compile(part)
        seconds = self._parts[part](count) / count
        losses, self._losses = self._losses, []
        return {"seconds": seconds, "losses": losses}

    def _steps(self, count: int) -> float:
        losses = []
        began = time.perf_counter()
        for _ in range(count):
            self._state, metrics = self._step(self._state, next(self._batches), self._numbers)
            losses.append(metrics["loss"])
        jax.block_until_ready(self._state)
        seconds = time.perf_counter() - began
        self._losses += [float(loss) for loss in losses]
        return seconds

    def _compile(self, part: str) -> Callable[[int], float]:
        """Returns a function that times a part of the step, so many times.

        Parts are made of the same functions as the step, which is compiled as one program, so that
        their times need not add up to its own.
        """
        batch = next(self._batches)
        loss, optimizer = _loss(self._config), self._optimizer
        options = compiler_options(self._mesh, self._config.model)
        with sharding_context(self._mesh, self._rules):
            if part == "forward":
                forward = jax.jit(loss).lower(self._state.params, batch).compile(options)
                return _timed(lambda: forward(self._state.params, batch))
            gradient = jax.jit(jax.value_and_grad(loss))
            backward = gradient.lower(self._state.params, batch).compile(options)
            if part == "forward+backward":
                return _timed(lambda: backward(self._state.params, batch))
            assert part == "optimizer", part
            _, grads = backward(self._state.params, batch)

            def update(params: Any, opt_state: Any, grads: Any) -> tuple[Any, Any]:
                gradient = Gradient(
                    grads, jnp.float32(1), optax.tree.norm(grads), accepted=jnp.bool_(True)
                )
                rate = jnp.float32(self._config.schedule.learning_rate)
                return apply_update(self._config, optimizer, params, opt_state, gradient, rate)

            donating = jax.jit(update, donate_argnums=(0, 1))
            arguments = (self._state.params, self._state.opt_state, grads)
            compiled = donating.lower(*arguments).compile(options)

        def optimize() -> Any:
            params, opt_state = compiled(self._state.params, self._state.opt_state, grads)
            self._state = self._state._replace(params=params, opt_state=opt_state)
            return params

        return _timed(optimize)


class Points:
    """Trains several models, one for each part."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Compiles a step for every shape of the task."""
        self._models = {}
        for name, shape in task["shapes"].items():
            one = task | {"shape": shape, "weights": task["weights"][name]}
            one["tokens"] = task["tokens"][name]
            if task["options"].get("unroll"):
                unroll = f"compute.scan_unroll={shape['layers']}"
                one["overrides"] = [*task["overrides"], unroll]
            self._models[name] = Training(one)
        seconds = {name: model.facts["compile_seconds"] for name, model in self._models.items()}
        self.facts = {"compile_seconds_by_part": seconds}

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a step of the model of that name."""
        return self._models[part].run("step", count)


def prepare(task: dict[str, Any]) -> Training | Points:
    """Returns a training run, or several for a task with `shapes`."""
    return Points(task) if "shapes" in task else Training(task)


def _timed(function: Callable[[], Any]) -> Callable[[int], float]:
    """Returns a function that calls another so many times, and returns the seconds of all."""

    def repeat(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            result = function()
        jax.block_until_ready(result)
        return time.perf_counter() - began

    repeat(1)
    return repeat


def _config(task: dict[str, Any]) -> Config:
    shape = task["shape"]
    overrides = {
        "model.num_layers": shape["layers"],
        "model.num_heads": shape["heads"],
        "model.d_model": shape["width"],
        "model.context_length": shape["context"],
        "model.vocab_size": shape["vocab"],
        # In place of bfloat16, what is best on this CPU, as peers round only what pays.
        "compute.dtype": "auto" if task["dtype"] == "bfloat16" else task["dtype"],
        "train.batch_size": task["batch"],
        "optimizer.beta2": task["beta2"],
        # What the peers do: AdamW at a constant rate.
        "schedule.name": "constant",
        "schedule.learning_rate": 1e-3,
        "schedule.warmup_steps": 0,
    }
    pairs = [f"{name}={value}" for name, value in overrides.items()]
    config = load_config(task["config"], [*pairs, *task["overrides"]])
    return dataclasses.replace(config, compute=with_dtype(config.compute))


def _loss(config: Config) -> Callable[[Any, Batch], jax.Array]:
    """Returns the function (parameters, batch) -> mean loss that the step differentiates."""
    model = build_model(config.model, config.compute, train=True)

    def loss(params: Any, batch: Batch) -> jax.Array:
        return weighted_loss(model, params, batch) / batch.targets.size

    return loss
