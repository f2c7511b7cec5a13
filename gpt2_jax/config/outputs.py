"""The sections of a config that say what a run leaves behind: checkpoints, validations, logs."""

from __future__ import annotations

import dataclasses

from gpt2_jax.config.knob import knob
from gpt2_jax.config.lengths import parse_lengths


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Determines when to save, and which checkpoints to keep."""

    every: int = knob(1000, "steps between checkpoints; the last step is always saved", low=1)
    every_minutes: float = knob(
        0.0,
        "also save once this many minutes have passed since the last save, checked every log.every "
        "steps; 0: never",
        low=0,
    )
    keep: int = knob(3, "newest checkpoints to keep", low=1)
    keep_every: int | None = knob(
        None, "also keep, forever, the checkpoints of steps that are multiples of this", low=1
    )
    best: str = knob(
        "",
        "number of the validation, such as eval/loss, by which the best step's checkpoint is kept "
        "beside the newest; `max:` before it if larger is better; empty: none",
    )
    max_failures: int = knob(
        5, "saves in a row that may fail, as on a full disk, before the run stops", low=1
    )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Determines the validation, and what else runs with it."""

    every: int = knob(1000, "steps between validations; 0: only at the end", low=0)
    batches: int = knob(-1, "batches of the fixed validation pass; -1: the full set", low=-1)
    sample_tokens: int = knob(64, "tokens of the sample text at every validation; 0: none", low=0)
    tasks: str = knob("", "tasks to score at every validation, such as `hellaswag,lambada_openai`")
    data: str | None = knob(
        None, "folder with the tasks' files; see docs/evaluation.md", is_path=True
    )
    limit: int | None = knob(None, "examples of each task to score; unset: all", low=1)
    context_lengths: str = knob(
        "",
        "also validate on windows of these numbers of tokens, such as `256,512`; numbers above "
        "model.context_length need a model.position other than learned",
    )

    @property
    def lengths(self) -> list[int]:
        """Returns the numbers that `context_lengths` lists."""
        return parse_lengths(self.context_lengths)


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Determines what is recorded while training, and where."""

    every: int = knob(10, "steps between lines of metrics", low=1)
    tensorboard: bool = knob(True, "also write TensorBoard events")
    wandb: str | None = knob(
        None, "Weights & Biases project to log to as well; needs the extra wandb"
    )
    norms_every: int = knob(100, "steps between per-layer norms; 0: none", low=0)
    goodput_every: int = knob(
        100,
        "steps between lines that say where the time since this start went; 0: only at the end",
        low=0,
    )
    histograms_every: int = knob(0, "steps between weight histograms; 0: none", low=0)
    profile_at: int = knob(-1, "step at which a profiler trace starts; -1: none", low=-1)
    profile_steps: int = knob(5, "steps the profiler trace covers", low=1)
