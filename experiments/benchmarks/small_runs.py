"""Cases of whole small runs and of start-up: commands as a user types them."""

from __future__ import annotations

import dataclasses

from experiments.benchmarks.case import Case, Gate, Shape, Subject, Work

# The models of the two small configs, at which `tests/experiments` compares them.
QUICKSTART = Shape(layers=2, heads=3, width=192, context=128, vocab=257)
SHAKESPEARE = Shape(layers=4, heads=4, width=128, context=64, vocab=65)
_STEPS = 2000  # of configs/shakespeare_char.py

OURS = Subject("gpt2_jax", "jax")
TORCH = Subject("torch eager", "torch", {"model": "plain"})
COMPILED = Subject("torch.compile", "torch", {"model": "plain", "compile": True})
"""Subjects that many cases share."""


def small_run_cases(tiny: bool) -> list[Case]:
    """Returns the cases of a step of both small configs, and of a whole run of one."""
    quickstart = _steady("quickstart", QUICKSTART, 8, 0.95, tiny)
    shakespeare = _steady("shakespeare_char", SHAKESPEARE, 12, 0.99, tiny)
    return [quickstart, shakespeare, _whole_run(tiny)]


def _steady(config: str, shape: Shape, batch: int, beta2: float, tiny: bool) -> Case:
    tokens = batch * shape.context
    task = {
        "shape": dataclasses.asdict(shape),
        "config": f"configs/{config}.py",
        "overrides": [],
        "batch": batch,
        "dtype": "float32",
        "beta2": beta2,
    }
    return Case(
        f"step_{config}",
        "train",
        f"training step of configs/{config}.py, {batch} x {shape.context}, float32",
        task,
        (OURS, TORCH, COMPILED),
        {"step": Work(tokens, shape.flops_per_token * tokens)},
        Gate("losses", 2e-4, at_least=20, at_most=20),
        count=4 if tiny else 20,
    )


def _whole_run(tiny: bool) -> Case:
    """Returns the case of a process that trains, saves and validates on all of the text.

    The two draw other batches from other weights, so that their losses differ as seeds do.
    """
    steps = 4 if tiny else _STEPS
    ours = [
        *("{python}", "-m", "gpt2_jax", "train", "--config", "configs/shakespeare_char.py"),
        *("--workdir", "{scratch}/run", "--config.data.path={data}", "--json"),
        *(f"--config.train.total_steps={steps}", "--config.checkpoint.every=1000"),
        *(["--config.schedule.warmup_steps=2"] if tiny else []),
    ]
    theirs = [
        *("{peer}", "-m", "experiments.benchmarks.workers.torch_run", "--data", "{data}"),
        *("--steps", str(steps), "--out", "{scratch}/model.pt"),
    ]
    answer = r'"(?:eval/)?loss": ([0-9.]+)'
    tokens = steps * 12 * SHAKESPEARE.context
    return Case(
        "run_shakespeare_char",
        "command",
        f"whole process of configs/shakespeare_char.py, {steps} steps, start to full validation",
        {"data": "shakespeare_char"},
        (
            Subject("gpt2_jax", "command", {"command": ours, "answer": answer, "cache": "cold"}),
            Subject("torch eager", "command", {"command": theirs, "answer": answer}),
        ),
        {"process": Work(tokens, SHAKESPEARE.flops_per_token * tokens)},
        Gate("values", 0.5 if tiny else 0.03),
        rounds=1,  # minutes each
    )


def startup_cases(shape: Shape, tiny: bool) -> list[Case]:
    """Returns the cases of the seconds from a command to its first step and its first token.

    Args:
      shape: the model that generates.
      tiny: whether the commands are for tests.
    """
    train = [
        *("{python}", "-m", "gpt2_jax", "train", "--config", "configs/quickstart.py"),
        *("--workdir", "{scratch}/run", "--config.data.path={data}", "--config.log.every=1"),
        *("--config.log.tensorboard=false", "--config.eval.sample_tokens=0"),
    ]
    torch_train = [
        *("{peer}", "-m", "experiments.benchmarks.workers.torch_run", "--data", "{data}"),
        *("--like", "quickstart", "--steps", "4000", "--verbose"),
    ]
    sample = [
        *("{python}", "-m", "gpt2_jax", "sample", "--model", "{weights}", "--temperature", "0"),
        *("--prompt_tokens", "1,2,3", "--max_new_tokens", "1"),
    ]
    torch_sample = [
        *("{peer}", "-m", "experiments.benchmarks.workers.torch_first_token"),
        *("--model", "{weights}", "--prompt_tokens", "1,2,3"),
    ]
    until = r"step 1\b.*loss"
    first_step = Case(
        "startup_train",
        "command",
        "from the command to the first step of configs/quickstart.py",
        {"data": "quickstart"},
        (
            *_cold_and_warm(train, {"until": until}),
            Subject("torch eager", "command", {"command": torch_train, "until": until}),
        ),
        {"first step": Work()},
        rounds=2 if tiny else 3,
    )
    first_token = Case(
        "startup_sample",
        "command",
        f"from the command to the first token, {shape.params / 1e6:,.0f}M parameters",
        {"shape": dataclasses.asdict(shape)},
        (
            *_cold_and_warm(sample, {}),
            Subject("transformers", "command", {"command": torch_sample}),
        ),
        {"first token": Work()},
        rounds=2 if tiny else 3,
    )
    return [first_step, first_token]


def _cold_and_warm(command: list[str], options: dict[str, str]) -> tuple[Subject, ...]:
    settings = {"command": command, **options}
    return (
        Subject("gpt2_jax", "command", {**settings, "cache": "warm"}),
        Subject("gpt2_jax, cold cache", "command", {**settings, "cache": "cold"}),
    )
