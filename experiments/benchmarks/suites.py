"""The cases of each suite. With `tiny`, every case is the same program at a size for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from experiments.benchmarks.case import Case, Gate, Shape, Subject, Work
from experiments.benchmarks.small_runs import COMPILED, OURS, TORCH, small_run_cases, startup_cases
from gpt2_jax.parallel.cpu import multiplies_bfloat16

_TINY = Shape(layers=2, heads=2, width=32, context=16, vocab=96)
_SMALL = Shape(12, 12, 768, 1024)
_SIZES = {
    "124m": _SMALL,
    "355m": Shape(24, 16, 1024, 1024),
    "774m": Shape(36, 20, 1280, 1024),
    "1558m": Shape(48, 25, 1600, 1024),
}
# Rows of a batch on a GPU of 80 GB, which all subjects of a case share; with 140 GB, twice as many.
_GPU_BATCHES = {"124m": 16, "355m": 8, "774m": 8, "1558m": 2}
_LARGE_GPU_BYTES = 100e9

_TRANSFORMERS = Subject("transformers", "torch", {"model": "transformers"})
_PEERS = (_TRANSFORMERS, TORCH, COMPILED)
_TOLERANCES = {"float32": 2e-4, "bfloat16": 1e-2}


def cpu_suite(tiny: bool, memory: float = 0) -> list[Case]:
    """Returns the cases for CPUs; `memory` changes nothing."""
    del memory
    shape = _at(_SMALL, tiny, 256)
    cases = [ceilings(64 if tiny else 2048, 1 << 16 if tiny else 1 << 28)]
    # Other CPUs multiply in bfloat16 a hundred times slower than in float32.
    dtypes = ["float32", "bfloat16"] if tiny or multiplies_bfloat16() else ["float32"]
    for dtype in dtypes:
        case = training(f"train_124m_{dtype}", shape, 4, dtype, (OURS, *_PEERS), unroll=True)
        if dtype != dtypes[-1]:  # its parts would take minutes, and the slower dtype's say little
            case = dataclasses.replace(case, parts={"step": case.parts["step"]})
            case = dataclasses.replace(case, count=2, rounds=4)
        cases.append(case)
    cases += small_run_cases(tiny)
    # 64 prompts of 512 tokens take half a minute to read, and say nothing that 8 do not.
    sizes = [(1, 16), (8, 16), (64, 16), (1, 512), (8, 512)]
    slow = [
        decoding(_at(_SMALL, tiny), sizes, 4 if tiny else 32, "float32", tiny),
        scoring(shape, 16),
    ]
    cases += [dataclasses.replace(case, rounds=3) for case in slow]
    cases += [loading(tiny), *startup_cases(_at(_SMALL, tiny), tiny)]
    return [*cases, *scaling(tiny)]


def gpu_suite(tiny: bool, memory: float = 0) -> list[Case]:
    """Returns the cases for one GPU.

    Args:
      tiny: whether to make every case tiny.
      memory: bytes of the GPU; batches of the largest size that fits are chosen by it.
    """
    cases = [ceilings(64 if tiny else 8192, 1 << 16 if tiny else 1 << 31)]
    for name, full in _SIZES.items():
        # States of several large models do not fit beside each other.
        peers = _PEERS if name == "124m" else (COMPILED,)
        batch = 2 if tiny else _gpu_batch(name, memory)
        subjects = (OURS, *peers)
        cases.append(training(f"train_{name}", _at(full, tiny), batch, "bfloat16", subjects))
    sizes = [(batch, prompt) for batch in (1, 8, 64) for prompt in (16, 512)]
    new = 4 if tiny else 128
    cases.append(decoding(_at(_SMALL, tiny), sizes[:3], new, "float32", tiny))
    cases.append(decoding(_at(_SMALL, tiny), sizes, new, "bfloat16", tiny))
    cases += [scoring(_at(_SMALL, tiny), 64, "bfloat16"), loading(tiny)]
    return [*cases, *startup_cases(_at(_SMALL, tiny), tiny), *scaling(tiny)]


SUITES: dict[str, Callable[..., list[Case]]] = {"cpu": cpu_suite, "gpu": gpu_suite}
"""Suite -> (tiny, bytes of the device's memory) -> its cases, in the order they run."""


def _gpu_batch(name: str, memory: float) -> int:
    return _GPU_BATCHES[name] * (2 if memory > _LARGE_GPU_BYTES else 1)


def _at(shape: Shape, tiny: bool, context: int | None = None) -> Shape:
    if tiny:
        return _TINY
    return dataclasses.replace(shape, context=context or shape.context)


def ceilings(size: int, copied: int) -> Case:
    """Returns the case of the ceilings: a product of two [size, size] matrices, and a copy.

    Args:
      size: rows and columns of the matrices.
      copied: bytes of the array that is copied; each is read and written.
    """
    product = Work(flops=2 * size**3)
    parts = {"float32": product, "bfloat16": product, "copy": Work(bytes=2 * copied)}
    return Case(
        "ceilings",
        "ceilings",
        f"matrix product of {size}^3 and copy of {copied >> 20} MiB",
        {"size": size, "copied": copied},
        (Subject("jax", "jax"), Subject("torch", "torch")),
        parts,
        Gate("values", 0.5 if size < 256 else 0.02),  # of random matrices
    )


def training(
    name: str,
    shape: Shape,
    batch: int,
    dtype: str,
    subjects: tuple[Subject, ...],
    unroll: bool = False,
) -> Case:
    """Returns the case of a training step: forward, backward, clip and AdamW.

    Args:
      name: its name.
      shape: the model.
      batch: rows.
      dtype: of activations and products; peers use autocast.
      subjects: who does it.
      unroll: whether our layers are unrolled, which is faster; otherwise the config decides.
    """
    tokens = batch * shape.context
    flops = shape.flops_per_token * tokens
    parts = {
        "step": Work(tokens, flops),
        "forward": Work(tokens, flops / 3),
        "forward+backward": Work(tokens, flops),
        # Weights, both moments and gradients are read, and all but the gradients written.
        "optimizer": Work(bytes=7 * 4 * shape.params),
    }
    task = {
        "shape": dataclasses.asdict(shape),
        "config": "configs/gpt2_small.py",
        "overrides": [
            *([f"compute.scan_unroll={shape.layers}"] if unroll else []),
        ],
        "batch": batch,
        "dtype": dtype,
        "beta2": 0.95,
    }
    return Case(
        name,
        "train",
        f"training step, {shape.params / 1e6:,.0f}M parameters, {batch} x {shape.context}, {dtype}",
        task,
        subjects,
        parts,
        Gate("losses", _TOLERANCES[dtype], at_least=20, at_most=20),
        count=3,
        counts=dict.fromkeys(list(parts)[1:], 1),  # they only say where the time of a step goes
        dtype=dtype,
    )


def decoding(
    shape: Shape, sizes: Sequence[tuple[int, int]], new: int, dtype: str, tiny: bool
) -> Case:
    """Returns the case of greedy generation, the reading of the prompts included.

    Args:
      shape: the model.
      sizes: (prompts, tokens of each) of every part.
      new: tokens to generate for each prompt.
      dtype: of weights and products; tokens are compared in float32 alone.
      tiny: whether prompts are cut to fit a tiny model; the names of the parts stay.
    """
    width = 4 if dtype == "float32" else 2
    parts, batches = {}, {}
    for batch, named in sizes:
        prompt = min(named, 5) if tiny else named
        cached = 2 * shape.layers * shape.width * width * batch * (prompt + new / 2)
        part = f"{batch} x {named}"
        batches[part] = (batch, prompt)
        parts[part] = Work(
            tokens=batch * new,
            flops=2 * shape.params * batch * (prompt + new),
            bytes=new * (shape.params * width + cached),
        )
    return Case(
        f"decode_{dtype}",
        "decode",
        f"greedy decoding of {new} tokens for so many prompts x tokens of each, {dtype}",
        {"shape": dataclasses.asdict(shape), "batches": batches, "new": new, "dtype": dtype},
        (OURS, _TRANSFORMERS, Subject("CTranslate2", "ctranslate2")),
        parts,
        Gate("tokens", 0) if dtype == "float32" else None,
        dtype=dtype,
    )


def scoring(shape: Shape, windows: int, dtype: str = "float32") -> Case:
    """Returns the case of scoring: the log-probability of every token of so many windows."""
    tokens = windows * shape.context
    return Case(
        "score",
        "score",
        f"scoring {windows} windows of {shape.context} tokens, {dtype}",
        {"shape": dataclasses.asdict(shape), "windows": windows, "dtype": dtype},
        (OURS, _TRANSFORMERS),
        {"score": Work(tokens, flops=shape.flops_per_token / 3 * tokens)},
        Gate("values", _TOLERANCES[dtype]),
        dtype=dtype,
    )


def loading(tiny: bool) -> Case:
    """Returns the case of the loader alone, which reads a file that is in the page cache."""
    batch, context = (2, 16) if tiny else (64, 1024)
    count = 2 if tiny else 20
    task = {"batch": batch, "context": context, "file_tokens": 2000 if tiny else 50_000_000}
    return Case(
        "load",
        "load",
        f"batches of {batch} x {context} from the page cache, without a model",
        task,
        (OURS, Subject("torch eager", "torch")),
        {"batch": Work(batch * context)},
        Gate("values", 0),
        count=count,
    )


def scaling(tiny: bool) -> list[Case]:
    """Returns the cases of step time against T, L and d, and of compile time against L."""
    base = Shape(2, 1, 32, 16, 96) if tiny else Shape(4, 4, 256, 128, 1024)
    axes: dict[str, tuple[int, ...]] = {
        "context": (16, 32) if tiny else (64, 128, 256, 512),
        "layers": (1, 2) if tiny else (2, 4, 8, 16),
        "width": (32, 64) if tiny else (128, 256, 512, 768),
    }
    cases = []
    for axis, sizes in axes.items():
        shapes = {size: dataclasses.replace(base, **{axis: size}) for size in sizes}
        if axis == "width":
            shapes = {d: dataclasses.replace(s, heads=max(1, d // 64)) for d, s in shapes.items()}
        parts = {
            str(size): Work(4 * shape.context, 4 * shape.context * shape.flops_per_token)
            for size, shape in shapes.items()
        }
        subjects = (OURS, TORCH)
        if axis == "layers":  # how long each takes to compile is recorded, too
            unrolled = Subject("gpt2_jax unrolled", "jax", {"unroll": True})
            subjects = (OURS, TORCH, unrolled)
        task = {
            "axis": axis,
            "shapes": {str(size): dataclasses.asdict(shape) for size, shape in shapes.items()},
            "config": "configs/gpt2_small.py",
            "overrides": ["compute.loss_chunk=0"],
            "batch": 4,
            "dtype": "float32",
            "beta2": 0.95,
        }
        title = f"training step against {axis}, otherwise {_describe(base)}, 4 rows, float32"
        gate = Gate("losses", _TOLERANCES["float32"])
        cases.append(
            Case(f"scaling_{axis}", "scaling", title, task, subjects, parts, gate, count=2)
        )
    return cases


def _describe(shape: Shape) -> str:
    return f"L={shape.layers}, d={shape.width}, T={shape.context}, vocabulary {shape.vocab}"
