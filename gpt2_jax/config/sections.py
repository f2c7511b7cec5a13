"""The sections of a run's config, and the knobs of all but `model` and `compute`."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import NamedTuple

from gpt2_jax.config.arguments import LARGEST_SEED
from gpt2_jax.config.compute import ComputeConfig
from gpt2_jax.config.knob import Knob, knob
from gpt2_jax.config.mixture import parse_mixture
from gpt2_jax.config.model import ModelConfig
from gpt2_jax.config.outputs import CheckpointConfig, EvalConfig, LogConfig
from gpt2_jax.errors import UserError

# Names of what other packages implement, and the config cannot import.
TOKENIZERS = ("gpt2", "byte", "char", "bpe", "ids", "words")
OPTIMIZERS = ("adamw", "lion", "muon", "adafactor")
MUON_SCALES = ("adam", "aspect")
SCHEDULES = ("cosine", "linear", "constant", "wsd")
DECAY_SHAPES = ("linear", "sqrt")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Determines where the tokens come from."""

    path: str | None = knob(
        None,
        "folder of token shards, as `gpt2-jax prepare` writes it, or gs://...; or examples: a "
        ".jsonl file, or a folder with train.jsonl and val.jsonl",
        is_path=True,
    )
    mixture: str | None = knob(
        None, "instead of path: folders and their weights, such as `data/web=0.7,data/books=0.3`"
    )
    fields: str = knob(
        "prompt:prompt,answer:answer",
        "names of the fields of examples, such as `prompt:question,answer:reply`; a line that has "
        "only `text` teaches all of it",
    )
    prompt_weight: float = knob(
        0.0,
        "how much a token of a prompt counts in training on examples, of which an answer's counts "
        "1; validation scores answers alone",
        low=0,
        high=1,
    )
    tokenizer: str = knob("gpt2", "tokenizer of the shards", choices=TOKENIZERS)
    val_fraction: float = knob(
        0.1,
        "fraction of the token stream, at its end, to hold out if the folder has no val shards",
        low=0,
        below=1,
    )
    isolate_documents: bool = knob(
        False, "keep attention within a document, and restart positions at each document"
    )

    @property
    def weights(self) -> dict[str, int]:
        """Returns {folder of token shards: its weight among the windows drawn}, in integers.

        Raises:
          UserError: for no folder at all, or a mixture that cannot be parsed.
        """
        if self.mixture is not None:
            return parse_mixture(self.mixture)
        if self.path is None:
            raise UserError(
                "data.path is not set: name a folder of token shards with --config.data.path=DIR "
                "(`gpt2-jax prepare` makes one), or a .jsonl file of examples"
            )
        return {self.path: 1}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sets the number of devices along each mesh axis; one may be -1, the remaining devices.

    With every axis unset, a run on several TPUs or GPUs chooses the mesh. If only some are unset,
    data, or otherwise fsdp, is the remaining devices, and the others are 1.
    """

    data: int | None = knob(
        None,
        "replicas of the model, each with its part of the batch; with no axis set, several TPUs or "
        "GPUs choose the mesh",
        low=-1,
    )
    fsdp: int | None = knob(
        None, "devices that parameters are sharded over, and gathered layer by layer", low=-1
    )
    tensor: int | None = knob(
        None, "devices that the heads and the MLP width are sharded over", low=-1
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Chooses the update rule and its constants."""

    name: str = knob(
        "adamw",
        "update rule; muon is for the matrices of the blocks, and adamw then for the rest; the "
        "learning rate of adafactor is relative to a parameter's size, and so about 0.01",
        choices=OPTIMIZERS,
    )
    beta1: float = knob(
        0.9, "decay of the first moment; of lion, the weight in its update", low=0, below=1
    )
    beta2: float = knob(
        0.95, "decay of the second moment; of lion, of its momentum", low=0, below=1
    )
    epsilon: float = knob(
        1e-8,
        "added to the root of the second moment; adamw, and what muon leaves to it. It must not be "
        "0, by which parameters without a gradient would be divided",
        low=1e-30,
    )
    muon_momentum: float = knob(
        0.95, "decay of the momentum of the matrices that muon updates", low=0, below=1
    )
    muon_scale: str = knob(
        "adam",
        "factor of muon's update of a matrix of I inputs and O outputs: adam, 0.2 sqrt(max(I, O)), "
        "the size of adamw's update; aspect, sqrt(max(1, O / I))",
        choices=MUON_SCALES,
    )
    weight_decay: float = knob(0.1, "decoupled decay of kernels and embeddings", low=0)
    mup_independent_decay: bool = knob(
        True,
        "with model.mup_base_width, divide the weight decay of matrices by the factor of their "
        "learning rate, so that a step shrinks them by the same fraction at every width",
    )
    grad_clip: float = knob(1.0, "largest global gradient norm; 0 turns clipping off", low=0)
    rate_multipliers: str = knob(
        "",
        "factors of the learning rate of parameters by name, such as `wte=0.1,h.*.mlp=0.5`; the "
        "first pattern that matches a name or a group counts",
    )
    freeze: str = knob(
        "",
        "parameters that are not trained, by name, such as `wte,wpe,h.*.mlp`; `*` stands for "
        "everything",
    )
    ema_decay: float = knob(
        0.0,
        "decay of an average of the parameters, which is validated beside them; 0: none",
        low=0,
        below=1,
    )


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Sets the learning rate of each update: linear warmup, then decay to `train.total_steps`."""

    name: str = knob(
        "cosine",
        "shape after warmup; wsd (warmup, stable, decay) stays at the peak until the last "
        "decay_fraction of train.total_steps, which may grow on resume until then",
        choices=SCHEDULES,
    )
    learning_rate: float = knob(6e-4, "peak learning rate", low=0)
    min_learning_rate: float = knob(6e-5, "learning rate at the end of the decay", low=0)
    warmup_steps: int = knob(2000, "updates from 0 to the peak; the first is not zero", low=0)
    decay_fraction: float = knob(
        0.2, "fraction of train.total_steps that the decay of wsd takes", low=0, high=1
    )
    decay_shape: str = knob(
        "linear",
        "what is left of the way down after a fraction x of the decay of wsd: linear, 1 - x; sqrt, "
        "1 - sqrt(x)",
        choices=DECAY_SHAPES,
    )
    allow_rewind: bool = knob(
        False,
        "resume with a larger train.total_steps even if that stretches a decay that has begun, and "
        "so raises the learning rate again",
    )


class Seeds(NamedTuple):
    """Holds the seeds of a run's random streams, which are independent even if they are equal."""

    init: int
    data: int
    dropout: int


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Sets the batch, the length of the run, its seed and its starting point."""

    batch_size: int = knob(512, "sequences per step, over all devices and microbatches", low=1)
    accumulation_steps: int = knob(
        1, "microbatches that a step is split into to save memory", low=1
    )
    total_steps: int = knob(100_000, "steps of the whole run", low=1)
    seed: int = knob(0, "seed of initialization, data order and dropout", low=0, high=LARGEST_SEED)
    init_seed: int | None = knob(
        None, "seed of the initialization alone; unset: seed", low=0, high=LARGEST_SEED
    )
    data_seed: int | None = knob(
        None, "seed of the order of the data alone; unset: seed", low=0, high=LARGEST_SEED
    )
    dropout_seed: int | None = knob(
        None, "seed of dropout alone; unset: seed", low=0, high=LARGEST_SEED
    )
    init_from: str | None = knob(None, "model whose parameters a new run starts from", is_path=True)
    init_resize: bool = knob(
        False, "crop or grow the context and vocabulary rows of init_from to this model's"
    )
    init_model: bool = knob(
        False,
        "take the model section from init_from, but for dropout, the knobs of LoRA and, with "
        "init_resize, the sizes of context and vocabulary",
    )
    patience: int = knob(
        0,
        "validations in a row without a better checkpoint.best after which the run ends; 0: never",
        low=0,
    )
    max_bad_steps: int = knob(
        10, "steps in a row with a non-finite loss or gradient before the run stops", low=1
    )
    spike_threshold: float = knob(
        0.0,
        "skip an update if its loss is more than this many deviations (1.4826 MAD) above the "
        "median of the last accepted losses; 0: never",
        low=0,
    )
    spike_window: int = knob(
        128,
        "accepted losses that the median is taken of; nothing is skipped before there are as many",
        low=8,
    )
    max_spikes: int = knob(
        5,
        "spikes to skip in a row; then losses are accepted until one is in range again, because "
        "otherwise a lasting change would be refused forever",
        low=1,
    )
    hang_timeout: float = knob(
        1800.0,
        "seconds without progress, such as a step, after which the run ends; must be longer than "
        "compiling or saving takes; 0: never",
        low=0,
    )

    @property
    def seeds(self) -> Seeds:
        """Returns the seed of each random stream: its own, or otherwise `seed`."""
        own = (self.init_seed, self.data_seed, self.dropout_seed)
        return Seeds(*(self.seed if seed is None else seed for seed in own))


@dataclasses.dataclass(frozen=True)
class Config:
    """Describes a whole run; each section lists its knobs."""

    model: ModelConfig = ModelConfig()
    compute: ComputeConfig = ComputeConfig()
    data: DataConfig = DataConfig()
    mesh: MeshConfig = MeshConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval: EvalConfig = EvalConfig()
    log: LogConfig = LogConfig()

    @property
    def tokens_per_step(self) -> int:
        """Returns the tokens of one step over all devices and microbatches."""
        return self.train.batch_size * self.model.context_length


@functools.cache
def knobs() -> tuple[Knob, ...]:
    """Returns every knob of `Config` in order, keyed `section.name`."""
    found = []
    for section in dataclasses.fields(Config):
        section_type = type(getattr(Config(), section.name))
        hints = typing.get_type_hints(section_type)
        for field in dataclasses.fields(section_type):
            hint = hints[field.name]
            kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
            found.append(
                Knob(f"{section.name}.{field.name}", kind, field.default, **field.metadata)
            )
    return tuple(found)
