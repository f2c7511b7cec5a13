"""A training script in torch like our small configs: trains, saves, and scores the whole text.

    python -m experiments.benchmarks.workers.torch_run --data DIR --steps 2000 --out model.pt

DIR is a folder of `gpt2-jax prepare`. The last line is JSON with the loss on all of the validation
split, in windows that do not overlap, and with the seconds of a step.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from experiments.benchmarks.small_runs import QUICKSTART, SHAKESPEARE
from experiments.benchmarks.workers.torch_device import DEVICE
from experiments.benchmarks.workers.torch_loading import draw
from experiments.benchmarks.workers.torch_model import GPT2, adamw, cross_entropy

# Config -> (model, rows of a batch, beta2); both have the schedule of `rate`.
CONFIGS = {"quickstart": (QUICKSTART, 8, 0.95), "shakespeare_char": (SHAKESPEARE, 12, 0.99)}
_PEAK, _MINIMUM, _WARMUP = 2e-3, 1e-4, 100
_HEADER_BYTES = 1024
_SCORED_ROWS = 64


def rate(step: int, steps: int) -> float:
    """Returns the learning rate of a step, counted from 0: linear warmup, then a cosine."""
    warmup = min(_WARMUP, steps // 2)
    if step < warmup:
        return _PEAK * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    return _MINIMUM + 0.5 * (_PEAK - _MINIMUM) * (1 + math.cos(math.pi * progress))


def read(folder: Path, split: str) -> np.ndarray:
    """Returns the tokens of a split."""
    files = sorted(folder.glob(f"{split}_*.bin"))
    return np.concatenate([np.fromfile(path, "<u2", offset=_HEADER_BYTES) for path in files])


@torch.inference_mode()
def score(model: nn.Module, tokens: np.ndarray, context: int) -> float:
    """Returns the mean loss of every token but the first, in nats."""
    whole = (len(tokens) - 1) // context * context
    ids = torch.from_numpy(tokens.astype(np.int64)).to(DEVICE)
    inputs, targets = ids[:whole].view(-1, context), ids[1 : whole + 1].view(-1, context)
    total = 0.0
    for some, wanted in zip(inputs.split(_SCORED_ROWS), targets.split(_SCORED_ROWS), strict=True):
        total += float(cross_entropy(model, some, wanted)) * wanted.numel()
    if rest := len(tokens) - 1 - whole:
        loss = cross_entropy(model, ids[None, whole:-1], ids[None, whole + 1 :])
        total += float(loss) * rest
    return total / (len(tokens) - 1)


def main() -> None:
    """Trains and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--like", choices=CONFIGS, default="shakespeare_char")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print the loss of every step")
    args = parser.parse_args()
    shape, rows, beta2 = CONFIGS[args.like]
    torch.manual_seed(args.seed)
    train, val = read(args.data, "train"), read(args.data, "val")
    model = GPT2(shape).to(DEVICE)
    optimizer = adamw(model, _PEAK, beta2)
    began, timed_from = time.perf_counter(), args.steps // 10
    for step in range(args.steps):
        if step == timed_from:
            began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate(step, args.steps)
        inputs, targets = draw(train, rows, shape.context)
        loss = cross_entropy(model, inputs.to(DEVICE), targets.to(DEVICE))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if args.verbose or (step + 1) % 100 == 0:
            print(f"step {step + 1} loss {float(loss):.4f}", flush=True)
    seconds = (time.perf_counter() - began) / max(args.steps - timed_from, 1)
    if args.out:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, args.out)
    print(json.dumps({"loss": score(model, val, shape.context), "step_seconds": seconds}))


if __name__ == "__main__":
    main()
