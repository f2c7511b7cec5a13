"""Every knob of a run, by section, with its default, its meaning and its limits."""

from __future__ import annotations

import dataclasses

from gpt2_jax.config.knob import knob
from gpt2_jax.config.shares import read_shares
from gpt2_jax.errors import UserError

# Of the MLP, by the names Hugging Face gives them.
ACTIVATIONS = ("gelu_new", "gelu", "relu", "silu", "quick_gelu", "tanh")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """GPT-2's shape, and how it is computed."""

    num_layers: int = knob(12, "transformer blocks", low=1)
    num_heads: int = knob(12, "attention heads; divides d_model", low=1)
    d_model: int = knob(768, "width of the residual stream", low=1)
    context_length: int = knob(1024, "tokens the model sees at once", low=1)
    vocab_size: int = knob(50257, "tokens of the tokenizer, padding excluded", low=1)
    vocab_multiple: int = knob(128, "the embedding's rows are padded to a multiple of this", low=1)
    dropout: float = knob(0.0, "probability, after embeddings, attention and MLP", low=0, below=1)
    mlp_dim: int | None = knob(None, "width of the MLP; unset: 4 d_model", low=1)
    activation: str = knob(
        "gelu_new", "of the MLP; gelu_new is GELU's tanh form", choices=ACTIVATIONS
    )
    layer_norm_epsilon: float = knob(1e-5, "added to the variance in norms", low=0)
    scale_attn_weights: bool = knob(True, "attention scores are divided by sqrt(head width)")
    scale_attn_by_inverse_layer_idx: bool = knob(
        False, "attention scores of layer i, from 1, are also divided by i"
    )
    tie_embeddings: bool = knob(True, "the output matrix is the token embedding")
    dtype: str = knob("bfloat16", "compute dtype", choices=("float32", "bfloat16"))
    param_dtype: str = knob("float32", "dtype the parameters are kept in", choices=("float32",))
    remat: str = knob(
        "none",
        "what the backward pass recomputes: nothing, all but matrix products, or whole blocks; "
        "with every layer unrolled it may save no memory",
        choices=("none", "dots", "full"),
    )
    scan_unroll: int = knob(1, "layers per iteration of the scan: more is faster to run", low=1)
    attention: str = knob(
        "auto",
        "attention kernel; auto: splash on TPUs, cudnn on GPUs, reference where neither can run",
        choices=("auto", "reference", "cudnn", "splash"),
    )
    loss_chunk: int = knob(
        128, "positions whose logits the loss holds at a time; 0 means the whole sequence", low=0
    )

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table: `vocab_size` rounded up to `vocab_multiple`."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads

    @property
    def mlp_width(self) -> int:
        """Width of the MLP: `mlp_dim`, or GPT-2's 4 d_model."""
        return self.mlp_dim or 4 * self.d_model


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the tokens come from."""

    path: str | None = knob(None, "folder of token shards, as `gpt2-jax prepare` writes it")
    mixture: str | None = knob(
        None, "instead of path: folders and their shares, such as `data/web=0.7,data/books=0.3`"
    )
    tokenizer: str = knob(
        "gpt2", "tokenizer of the shards", choices=("gpt2", "byte", "char", "bpe")
    )
    val_fraction: float = knob(
        0.1, "end of the token stream held out when the folder has no val shards", low=0, below=1
    )
    isolate_documents: bool = knob(
        False, "attention stays within a document, and positions start anew at each"
    )

    @property
    def shares(self) -> dict[str, int]:
        """Folder of each set of shards -> its part of the windows drawn, in whole numbers.

        Raises:
          UserError: for no folder at all, or a mixture that cannot be read.
        """
        if self.mixture is not None:
            return read_shares(self.mixture)
        if self.path is None:
            raise UserError(
                "data.path is not set: name a folder of token shards with --config.data.path=DIR "
                "(`gpt2-jax prepare` makes one)"
            )
        return {self.path: 1}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; one axis may be -1: the devices left over."""

    data: int = knob(-1, "replicas of the model, each with its part of the batch", low=-1)
    fsdp: int = knob(1, "parts the parameters are cut into, gathered layer by layer", low=-1)
    tensor: int = knob(1, "parts the heads and the MLP width are cut into", low=-1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW."""

    name: str = knob("adamw", "update rule", choices=("adamw",))
    beta1: float = knob(0.9, "decay of the first moment", low=0, below=1)
    beta2: float = knob(0.95, "decay of the second moment", low=0, below=1)
    epsilon: float = knob(1e-8, "added to the root of the second moment", low=0)
    weight_decay: float = knob(0.1, "decoupled decay of kernels and embeddings", low=0)
    grad_clip: float = knob(1.0, "largest global gradient norm; 0 turns clipping off", low=0)


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate by optimizer update: linear warmup, then decay until `train.total_steps`."""

    name: str = knob("cosine", "shape after warmup", choices=("cosine", "linear", "constant"))
    learning_rate: float = knob(6e-4, "peak learning rate", low=0)
    min_learning_rate: float = knob(6e-5, "learning rate at the end of the decay", low=0)
    warmup_steps: int = knob(2000, "updates from 0 to the peak; the first is not zero", low=0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How much, how often, from where."""

    batch_size: int = knob(512, "sequences per step, over all devices and microbatches", low=1)
    accumulation_steps: int = knob(1, "microbatches a step is cut into to save memory", low=1)
    total_steps: int = knob(100_000, "steps of the whole run", low=1)
    seed: int = knob(0, "of initialization, data order and dropout", low=0, high=2**32 - 1)
    init_from: str | None = knob(None, "model whose parameters a new run starts from")
    init_resize: bool = knob(
        False, "init_from may have other sizes of context and vocabulary: rows are cropped or grown"
    )
    max_bad_steps: int = knob(
        10, "steps in a row with a non-finite loss or gradient before the run stops", low=1
    )
    spike_threshold: float = knob(
        0.0,
        "an update is skipped if its loss is more than this many deviations (1.4826 MAD) above the "
        "median of the last accepted ones; 0: never",
        low=0,
    )
    spike_window: int = knob(
        128, "accepted losses the median is of; until there are as many, none is skipped", low=8
    )
    max_spikes: int = knob(
        5,
        "spikes skipped in a row; after them losses are taken as they come until one is in range, "
        "because a change that lasts would else be refused for ever",
        low=1,
    )
    hang_timeout: float = knob(
        1800.0,
        "seconds without progress, such as a step, that end the run; it must have time to compile "
        "and to save; 0: never",
        low=0,
    )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and how many to keep."""

    every: int = knob(1000, "steps between checkpoints; the last step is always saved", low=1)
    keep: int = knob(3, "newest checkpoints kept", low=1)
    max_failures: int = knob(
        5, "saves in a row that may fail, as on a full disk, before the run stops", low=1
    )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The validation pass and the sample texts beside it."""

    every: int = knob(1000, "steps between validations; 0 means only at the end", low=0)
    batches: int = knob(-1, "batches of the fixed validation pass; -1 is the full set", low=-1)
    sample_tokens: int = knob(64, "tokens of the sample text written beside it; 0: none", low=0)
    tasks: str = knob("", "evaluations to run beside it, such as `hellaswag,lambada_openai`")
    data: str | None = knob(None, "folder with their files; see docs/evaluation.md")
    limit: int | None = knob(None, "only the first examples of each; unset: all", low=1)


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What is written down along the way."""

    every: int = knob(10, "steps between rows of metrics", low=1)
    tensorboard: bool = knob(True, "also write TensorBoard events")
    norms_every: int = knob(100, "steps between per-layer norms; 0: none", low=0)
    histograms_every: int = knob(0, "steps between weight histograms; 0: none", low=0)
    profile_at: int = knob(-1, "step at which a profiler trace starts; -1: none", low=-1)
    profile_steps: int = knob(5, "steps the profiler trace covers", low=1)


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. See each section for its knobs."""

    model: ModelConfig = ModelConfig()
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
        """Tokens of one step over all devices and microbatches."""
        return self.train.batch_size * self.model.context_length
