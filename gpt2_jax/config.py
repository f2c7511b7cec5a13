"""Every knob of a run, and the strict way from a config file to them.

A config file defines `get_config()`, starts from `default()`, assigns what differs and returns the
`ml_collections.ConfigDict`. `load_config` runs the file, applies `section.key=value` overrides and
returns a checked `Config`. This module imports no JAX, so that a typo is reported in an instant.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fractions
import math
import posixpath
import re
import runpy
import traceback
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from ml_collections import config_dict

from gpt2_jax.errors import UserError, did_you_mean, shown

# Of the MLP, by the names Hugging Face gives them.
ACTIVATIONS = ("gelu_new", "gelu", "relu", "silu", "quick_gelu", "tanh")

# Devices count in int32.
_MOST = 2**31 - 1


def _knob(
    default: Any,
    help: str,
    *,
    choices: Sequence[Any] | None = None,
    low: float | None = None,
    high: float = _MOST,
    below: float | None = None,
) -> Any:
    """A dataclass field with its documentation and its allowed values, `low` included."""
    limits = {"choices": choices, "low": low, "high": high, "below": below}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """GPT-2's shape, and how it is computed."""

    num_layers: int = _knob(12, "transformer blocks", low=1)
    num_heads: int = _knob(12, "attention heads; divides d_model", low=1)
    d_model: int = _knob(768, "width of the residual stream", low=1)
    context_length: int = _knob(1024, "tokens the model sees at once", low=1)
    vocab_size: int = _knob(50257, "tokens of the tokenizer, padding excluded", low=1)
    vocab_multiple: int = _knob(128, "the embedding's rows are padded to a multiple of this", low=1)
    dropout: float = _knob(0.0, "probability, after embeddings, attention and MLP", low=0, below=1)
    mlp_dim: int | None = _knob(None, "width of the MLP; unset: 4 d_model", low=1)
    activation: str = _knob(
        "gelu_new", "of the MLP; gelu_new is GELU's tanh form", choices=ACTIVATIONS
    )
    layer_norm_epsilon: float = _knob(1e-5, "added to the variance in norms", low=0)
    scale_attn_weights: bool = _knob(True, "attention scores are divided by sqrt(head width)")
    scale_attn_by_inverse_layer_idx: bool = _knob(
        False, "attention scores of layer i, from 1, are also divided by i"
    )
    tie_embeddings: bool = _knob(True, "the output matrix is the token embedding")
    dtype: str = _knob("bfloat16", "compute dtype", choices=("float32", "bfloat16"))
    param_dtype: str = _knob("float32", "dtype the parameters are kept in", choices=("float32",))
    remat: str = _knob(
        "none",
        "what the backward pass recomputes: nothing, all but matrix products, or whole blocks; "
        "with every layer unrolled it may save no memory",
        choices=("none", "dots", "full"),
    )
    scan_unroll: int = _knob(1, "layers per iteration of the scan: more is faster to run", low=1)
    attention: str = _knob(
        "auto",
        "attention kernel; auto: splash on TPUs, cudnn on GPUs, reference where neither can run",
        choices=("auto", "reference", "cudnn", "splash"),
    )
    loss_chunk: int = _knob(
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

    path: str | None = _knob(None, "folder of token shards, as `gpt2-jax prepare` writes it")
    mixture: str | None = _knob(
        None, "instead of path: folders and their shares, such as `data/web=0.7,data/books=0.3`"
    )
    tokenizer: str = _knob(
        "gpt2", "tokenizer of the shards", choices=("gpt2", "byte", "char", "bpe")
    )
    val_fraction: float = _knob(
        0.1, "end of the token stream held out when the folder has no val shards", low=0, below=1
    )
    isolate_documents: bool = _knob(
        False, "attention stays within a document, and positions start anew at each"
    )

    @property
    def shares(self) -> dict[str, int]:
        """Folder of each set of shards -> its part of the windows drawn, in whole numbers.

        Raises:
          UserError: for no folder at all, or a mixture that cannot be read.
        """
        if self.mixture is not None:
            return _shares(self.mixture)
        if self.path is None:
            raise UserError(
                "data.path is not set: name a folder of token shards with --config.data.path=DIR "
                "(`gpt2-jax prepare` makes one)"
            )
        return {self.path: 1}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; one axis may be -1: the devices left over."""

    data: int = _knob(-1, "replicas of the model, each with its part of the batch", low=-1)
    fsdp: int = _knob(1, "parts the parameters are cut into, gathered layer by layer", low=-1)
    tensor: int = _knob(1, "parts the heads and the MLP width are cut into", low=-1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW."""

    name: str = _knob("adamw", "update rule", choices=("adamw",))
    beta1: float = _knob(0.9, "decay of the first moment", low=0, below=1)
    beta2: float = _knob(0.95, "decay of the second moment", low=0, below=1)
    epsilon: float = _knob(1e-8, "added to the root of the second moment", low=0)
    weight_decay: float = _knob(0.1, "decoupled decay of kernels and embeddings", low=0)
    grad_clip: float = _knob(1.0, "largest global gradient norm; 0 turns clipping off", low=0)


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate by optimizer update: linear warmup, then decay until `train.total_steps`."""

    name: str = _knob("cosine", "shape after warmup", choices=("cosine", "linear", "constant"))
    learning_rate: float = _knob(6e-4, "peak learning rate", low=0)
    min_learning_rate: float = _knob(6e-5, "learning rate at the end of the decay", low=0)
    warmup_steps: int = _knob(2000, "updates from 0 to the peak; the first is not zero", low=0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How much, how often, from where."""

    batch_size: int = _knob(512, "sequences per step, over all devices and microbatches", low=1)
    accumulation_steps: int = _knob(1, "microbatches a step is cut into to save memory", low=1)
    total_steps: int = _knob(100_000, "steps of the whole run", low=1)
    seed: int = _knob(0, "of initialization, data order and dropout", low=0, high=2**32 - 1)
    init_from: str | None = _knob(None, "model whose parameters a new run starts from")
    init_resize: bool = _knob(
        False, "init_from may have other sizes of context and vocabulary: rows are cropped or grown"
    )
    max_bad_steps: int = _knob(
        10, "steps in a row with a non-finite loss or gradient before the run stops", low=1
    )
    spike_threshold: float = _knob(
        0.0,
        "an update is skipped if its loss is more than this many deviations (1.4826 MAD) above the "
        "median of the last accepted ones; 0: never",
        low=0,
    )
    spike_window: int = _knob(
        128, "accepted losses the median is of; until there are as many, none is skipped", low=8
    )
    max_spikes: int = _knob(
        5,
        "spikes skipped in a row; after them losses are taken as they come until one is in range, "
        "because a change that lasts would else be refused for ever",
        low=1,
    )
    hang_timeout: float = _knob(
        1800.0,
        "seconds without progress, such as a step, that end the run; it must have time to compile, "
        "validate and save; 0: never",
        low=0,
    )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and how many to keep."""

    every: int = _knob(1000, "steps between checkpoints; the last step is always saved", low=1)
    keep: int = _knob(3, "newest checkpoints kept", low=1)
    max_failures: int = _knob(
        5, "saves in a row that may fail, as on a full disk, before the run stops", low=1
    )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The validation pass and the sample texts beside it."""

    every: int = _knob(1000, "steps between validations; 0 means only at the end", low=0)
    batches: int = _knob(-1, "batches of the fixed validation pass; -1 is the full set", low=-1)
    sample_tokens: int = _knob(64, "tokens of the sample text written beside it; 0: none", low=0)
    tasks: str = _knob("", "evaluations to run beside it, such as `hellaswag,lambada_openai`")
    data: str | None = _knob(None, "folder with their files; see docs/evaluation.md")
    limit: int | None = _knob(None, "only the first examples of each; unset: all", low=1)


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What is written down along the way."""

    every: int = _knob(10, "steps between rows of metrics", low=1)
    tensorboard: bool = _knob(True, "also write TensorBoard events")
    norms_every: int = _knob(100, "steps between per-layer norms; 0: none", low=0)
    histograms_every: int = _knob(0, "steps between weight histograms; 0: none", low=0)
    profile_at: int = _knob(-1, "step at which a profiler trace starts; -1: none", low=-1)
    profile_steps: int = _knob(5, "steps the profiler trace covers", low=1)


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


# What must stay as it was when a run resumes; the rest changes how it goes, not what it computes.
_FIXED_ON_RESUME = frozenset(
    (
        *("model", "data", "optimizer", "schedule"),
        *("train.seed", "train.batch_size"),
        *("train.spike_threshold", "train.spike_window", "train.max_spikes"),
    )
)


@dataclasses.dataclass(frozen=True)
class Knob:
    """One leaf of the config: what `--help`, overrides and checks need to know of it."""

    key: str
    type: type
    optional: bool
    default: Any
    help: str
    choices: tuple[Any, ...] | None
    low: float | None
    high: float
    below: float | None


def knobs() -> Iterator[Knob]:
    """Every knob of `Config` in order, keyed `section.name`."""
    for section in dataclasses.fields(Config):
        section_type = type(getattr(Config(), section.name))
        hints = typing.get_type_hints(section_type)
        for field in dataclasses.fields(section_type):
            hint = hints[field.name]
            optional = isinstance(hint, types.UnionType)
            kind = typing.get_args(hint)[0] if optional else hint
            meta = dict(field.metadata)
            yield Knob(f"{section.name}.{field.name}", kind, optional, field.default, **meta)


def default() -> ml_collections.ConfigDict:
    """All knobs at their defaults: the locked, type-safe ConfigDict a config file starts from."""
    sections: dict[str, dict[str, Any]] = {}
    for knob in knobs():
        section, name = knob.key.split(".")
        value = config_dict.placeholder(knob.type) if knob.default is None else knob.default
        sections.setdefault(section, {})[name] = value
    return ml_collections.ConfigDict(sections).lock()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Runs a config file's `get_config()` and applies overrides.

    Args:
      path: a Python file that defines `get_config() -> ml_collections.ConfigDict`.
      overrides: `section.key=value` strings, applied in order.

    Raises:
      UserError: for a missing or broken file, an unknown key, a wrong type or a value out of range.
    """
    values = _flatten(_run_config_file(Path(path)))
    by_key = {knob.key: knob for knob in knobs()}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"--config.{key} needs a value: --config.{key}=VALUE")
        if key not in by_key:
            raise _unknown_key(key, by_key)
        values[key] = _parse(by_key[key], text)
    return _from_flat(values)


def from_dict(values: Mapping[str, Any]) -> Config:
    """Builds a checked Config from nested mappings; knobs left out keep their defaults.

    Raises:
      UserError: for an unknown key, a wrong type or a value out of range.
    """
    return _from_flat(_flatten(values))


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """The config as nested plain values, ready for JSON; `from_dict` is its inverse."""
    return dataclasses.asdict(config)


def check_resume(saved: Config, new: Config, workdir: str | Path) -> None:
    """Refuses a config that would not continue the run that `saved` started.

    Raises:
      UserError: naming every field that may not change, or a `train.total_steps` that shrank.
    """
    old_values, new_values = _flatten(to_dict(saved)), _flatten(to_dict(new))
    old_meaning, new_meaning = _meaning(old_values), _meaning(new_values)
    changed = [
        f"{key} ({old_values[key]!r} -> {value!r})"
        for key, value in new_values.items()
        if old_meaning[key] != new_meaning[key]
        and not _FIXED_ON_RESUME.isdisjoint((key, key.split(".")[0]))
    ]
    if changed:
        raise UserError(
            f"{workdir} holds a run with another config: {', '.join(changed)} may not change on "
            "resume; restore these values or choose another --workdir"
        )
    if new.train.total_steps < saved.train.total_steps:
        raise UserError(
            f"train.total_steps may grow on resume but not shrink: {workdir} has "
            f"{saved.train.total_steps}, not {new.train.total_steps}: set it to that again, and to "
            "stop early give --stop_at_step"
        )


def _meaning(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by key, alike where only the spelling of a folder or of shares differs."""
    meaning = dict(values)
    if (path := values["data.path"]) is not None:
        meaning["data.path"] = posixpath.normpath(path)
    if (mixture := values["data.mixture"]) is not None:
        meaning["data.mixture"] = list(_shares(mixture).items())  # what is drawn follows the order
    return meaning


def _run_config_file(path: Path) -> Mapping[str, Any]:
    if path.is_dir() or (path.is_file() and path.suffix != ".py"):
        raise UserError(f"--config {path}: expected a Python file, such as configs/quickstart.py")
    if not path.is_file():
        siblings = {str(p): p for p in path.parent.glob("*.py")} if path.parent.is_dir() else {}
        raise UserError(f"no config file {path}{did_you_mean(str(path), siblings)}")
    try:
        namespace = runpy.run_path(str(path))
        if "get_config" not in namespace:
            raise UserError(f"{path} defines no get_config()")
        result = namespace["get_config"]()
        if not isinstance(result, ml_collections.ConfigDict):
            raise UserError(
                f"{path}: get_config() must return gpt2_jax.config.default() with changes"
            )
        return result.to_dict()
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit(0), too, would else look like a run that is done
        # The innermost line that belongs to the config file is the one its author can mend.
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        where = f"{path}, line {line}" if line else path
        raise UserError(f"{where}: {_reason(error)}") from error


# A message may quote a whole value.
_LONGEST_REASON = 300


def _reason(error: BaseException) -> str:
    """What an exception in a config file says, in one line."""
    plain = isinstance(error, Exception) and error.args
    text = str(error.args[0]) if plain else shown(error)
    # ml_collections lists every field of the section before its did-you-mean, and quotes the text
    # of a KeyError once more.
    text = " ".join(text.replace("\\n", " ").replace("\\'", "'").split()).strip("'")
    text = re.sub(r" Other fields present: .*?(?=Did you mean|$)", " ", text)
    return text[:_LONGEST_REASON]


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    sections = [section.name for section in dataclasses.fields(Config)]
    for section, entries in values.items():
        if section not in sections:
            hint = did_you_mean(str(section), sections)
            raise UserError(f"config has no section {shown(section)}{hint}")
        if not isinstance(entries, Mapping):
            raise UserError(f"config section {section!r} must hold knobs, not {shown(entries)}")
        flat.update({f"{section}.{name}": value for name, value in entries.items()})
    return flat


def _from_flat(values: Mapping[str, Any]) -> Config:
    by_key = {knob.key: knob for knob in knobs()}
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key not in by_key:
            raise _unknown_key(key, by_key)
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = _checked(by_key[key], value)
    defaults = Config()
    built = {
        name: dataclasses.replace(getattr(defaults, name), **entries)
        for name, entries in sections.items()
    }
    config = dataclasses.replace(defaults, **built)
    _check_together(config)
    return config


def _unknown_key(key: str, known: Mapping[str, Knob]) -> UserError:
    section, dot, name = key.partition(".")
    if not dot:
        return UserError(f"--config.{key}: overrides are --config.SECTION.KEY=VALUE")
    # Only the last parts are compared: a section in common makes any two keys look alike.
    beside = [other.partition(".")[2] for other in known if other.startswith(section + ".")]
    namesakes = [other for other in known if other.endswith("." + name)]
    if beside and (close := difflib.get_close_matches(name, beside, n=1)):
        hint = f"; did you mean '{section}.{close[0]}'?"
    elif namesakes:
        hint = f"; did you mean {namesakes[0]!r}?"
    elif beside:
        hint = "; knobs there: " + ", ".join(beside)
    else:
        hint = did_you_mean(key, known)
    return UserError(f"unknown config key {shown(key)}{hint}")


def _parse(knob: Knob, text: str) -> Any:
    """Reads an override's text as the knob's type."""
    if knob.optional and text.lower() in ("none", "null", ""):
        return None
    if knob.type is bool:
        truth = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in truth:
            raise UserError(f"{knob.key} must be true or false, not {text!r}")
        return truth[text.lower()]
    try:
        return knob.type(text)
    except ValueError:
        raise _wrong_type(knob, text) from None


def _wrong_type(knob: Knob, value: Any) -> UserError:
    kind = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[knob.type]
    return UserError(f"{knob.key} must be {kind}, not {shown(value)}")


def _checked(knob: Knob, value: Any) -> Any:
    """The value in the knob's type, or an error that names field, value and allowed range."""
    if value is None and knob.optional:
        return None
    kinds = (int, float) if knob.type is float else (knob.type,)
    if not isinstance(value, kinds) or isinstance(value, bool) != (knob.type is bool):
        raise _wrong_type(knob, value)
    if knob.choices and value not in knob.choices:
        hint = did_you_mean(str(value), map(str, knob.choices))
        raise UserError(
            f"{knob.key} must be one of {', '.join(map(str, knob.choices))}, not {shown(value)}"
            f"{hint}"
        )
    if isinstance(value, (int, float)) and knob.type is not bool:
        _check_range(knob, value)
        return knob.type(value)
    return value


def _check_range(knob: Knob, value: float) -> None:
    if not -math.inf < value < math.inf:
        raise UserError(f"{knob.key} must be finite, not {value!r}")
    if knob.low is not None and value < knob.low:
        raise UserError(f"{knob.key} must be at least {knob.low:g}, not {shown(value)}")
    if knob.below is not None and value >= knob.below:
        raise UserError(f"{knob.key} must be below {knob.below:g}, not {shown(value)}")
    if value > knob.high:
        raise UserError(f"{knob.key} must be at most {knob.high}, not {shown(value)}")


# A round of a mixture is laid out in memory.
_LONGEST_ROUND = 100_000
# No exponents: they make numbers of any length.
_SHARE = re.compile(r"[\d./]+")


def _shares(mixture: str) -> dict[str, int]:
    """The smallest whole numbers in the proportions that `folder=share,...` gives."""
    shares: dict[str, fractions.Fraction] = {}
    for entry in mixture.split(","):
        folder, _, text = entry.strip().rpartition("=")
        folder = posixpath.normpath(folder) if folder else ""
        share = fractions.Fraction(0)
        if _SHARE.fullmatch(text.strip()):
            with contextlib.suppress(ValueError, ZeroDivisionError):
                share = fractions.Fraction(text.strip())
        if not folder or share <= 0:
            raise UserError(
                f"data.mixture: {entry.strip()!r} is not FOLDER=SHARE with a share above 0, such "
                "as data/web=0.7"
            )
        if folder in shares:
            raise UserError(f"data.mixture names {folder} twice: give it one share")
        shares[folder] = share
    scale = math.lcm(*(share.denominator for share in shares.values()))
    whole = [int(share * scale) for share in shares.values()]
    divisor = math.gcd(*whole)
    whole = [share // divisor for share in whole]
    if sum(whole) > _LONGEST_ROUND:
        raise UserError(f"data.mixture={mixture}: give the shares with fewer digits")
    return dict(zip(shares, whole, strict=True))


def _check_together(config: Config) -> None:
    """Checks that need more than one knob."""
    model, train, schedule = config.model, config.train, config.schedule
    if config.data.mixture is not None:
        if config.data.path is not None:
            raise UserError(
                "data.path and data.mixture exclude each other: --config.data.path=none"
            )
        _shares(config.data.mixture)
    if model.d_model % model.num_heads:
        raise UserError(
            f"model.d_model={model.d_model} must be a multiple of model.num_heads={model.num_heads}"
        )
    if model.padded_vocab_size > _MOST:
        raise UserError(
            f"model.vocab_size={model.vocab_size}, padded to a multiple of model.vocab_multiple="
            f"{model.vocab_multiple}, must be at most {_MOST}"
        )
    if model.num_layers % model.scan_unroll:
        raise UserError(
            f"model.scan_unroll={model.scan_unroll} must divide model.num_layers={model.num_layers}"
        )
    if model.loss_chunk and model.context_length % min(model.loss_chunk, model.context_length):
        raise UserError(
            f"model.loss_chunk={model.loss_chunk} must divide "
            f"model.context_length={model.context_length}, or be 0"
        )
    if train.batch_size % train.accumulation_steps:
        raise UserError(
            f"train.batch_size={train.batch_size} must be a multiple of "
            f"train.accumulation_steps={train.accumulation_steps}"
        )
    if schedule.min_learning_rate > schedule.learning_rate:
        raise UserError(
            f"schedule.min_learning_rate={schedule.min_learning_rate:g} must not exceed "
            f"schedule.learning_rate={schedule.learning_rate:g}"
        )
    if schedule.warmup_steps > train.total_steps:
        raise UserError(
            f"schedule.warmup_steps={schedule.warmup_steps} must not exceed "
            f"train.total_steps={train.total_steps}"
        )
    axes = {axis: getattr(config.mesh, axis) for axis in ("data", "fsdp", "tensor")}
    if list(axes.values()).count(-1) > 1 or 0 in axes.values():
        raise UserError(f"mesh axes must be positive, at most one of them -1, not {axes}")
