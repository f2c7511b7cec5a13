"""The training step of torch's models, alone and in its parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.benchmarks.case import Shape
from experiments.benchmarks.workers.torch_device import DEVICE, autocast, timed, wait
from experiments.benchmarks.workers.torch_model import GPT2, adamw, cross_entropy

_RATE = 1e-3


class Training:
    """Trains a model step by step."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Reads the weights and makes one step, which compiles."""
        self._dtype = task["dtype"]
        windows = torch.from_numpy(np.load(task["tokens"]).astype(np.int64))
        self._batches = [
            (window[:, :-1].contiguous().to(DEVICE), window[:, 1:].contiguous().to(DEVICE))
            for window in windows
        ]
        self._model = make_model(task).to(DEVICE).train()
        self._optimizer = adamw(self._model, _RATE, task["beta2"])
        self._loss: Callable[..., Tensor] = cross_entropy
        if task["options"].get("compile"):
            self._loss = torch.compile(cross_entropy)
        self._step_number = 0
        self._losses: list[Tensor] = []
        began = time.perf_counter()
        self._step()
        wait()
        self.facts: dict[str, Any] = {"first_step_seconds": time.perf_counter() - began}
        self._parts: dict[str, Callable[[], Any]] = {
            "step": self._step,
            "forward": self._forward,
            "forward+backward": self._backward,
            "optimizer": self._optimize,
        }

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a part; after `step`, answers the losses that were not yet answered."""
        if part == "optimizer" and next(self._model.parameters()).grad is None:
            self._backward()  # gradients to apply
        seconds = timed(self._parts[part], count) / count
        losses, self._losses = [float(loss) for loss in self._losses], []
        return {"seconds": seconds, "losses": losses}

    def _step(self) -> None:
        inputs, targets = self._batches[self._step_number % len(self._batches)]
        self._step_number += 1
        with autocast(self._dtype):
            loss = self._loss(self._model, inputs, targets)
        loss.backward()
        self._optimize()
        self._optimizer.zero_grad(set_to_none=True)
        self._losses.append(loss.detach())

    def _forward(self) -> None:
        with torch.no_grad(), autocast(self._dtype):
            self._loss(self._model, *self._batches[0])

    def _backward(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        with autocast(self._dtype):
            loss = self._loss(self._model, *self._batches[0])
        loss.backward()

    def _optimize(self) -> None:
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()


class Points:
    """Trains several models, one for each part."""

    def __init__(self, task: dict[str, Any]) -> None:
        """Makes a model for every shape of the task."""
        self._models = {}
        for name, shape in task["shapes"].items():
            one = task | {"shape": shape, "weights": task["weights"][name]}
            one["tokens"] = task["tokens"][name]
            self._models[name] = Training(one)
        self.facts: dict[str, Any] = {}

    def run(self, part: str, count: int) -> dict[str, Any]:
        """Times a step of the model of that name."""
        return self._models[part].run("step", count)


def prepare(task: dict[str, Any]) -> Training | Points:
    """Returns a training run, or several for a task with `shapes`."""
    return Points(task) if "shapes" in task else Training(task)


def make_model(task: dict[str, Any]) -> nn.Module:
    """Returns the model that `options` names, with the task's weights."""
    folder = Path(task["weights"])
    if task["options"].get("model") == "transformers":
        from transformers import GPT2LMHeadModel

        settings = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
        return GPT2LMHeadModel.from_pretrained(folder, attn_implementation="sdpa", **settings)
    model = GPT2(Shape(**task["shape"]))
    model.read(folder)
    return model
