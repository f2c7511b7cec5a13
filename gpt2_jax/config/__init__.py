"""All knobs of a run, and strict loading of a config file into a checked `Config`.

A config file defines `get_config()`, starts from `default()`, assigns what differs and returns the
`ml_collections.ConfigDict`. `load_config` runs the file, applies `section.key=value` overrides and
returns a checked `Config`. Nothing here imports JAX, so that a typo is reported without delay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from ml_collections import config_dict

from gpt2_jax.config import arguments
from gpt2_jax.config.best import check_best
from gpt2_jax.config.compute import ComputeConfig
from gpt2_jax.config.fields import parse_fields
from gpt2_jax.config.file import run_config_file, split_argument
from gpt2_jax.config.hints import unknown_key
from gpt2_jax.config.knob import MOST, Knob, checked, parse
from gpt2_jax.config.lengths import check_lengths
from gpt2_jax.config.lora import check_adapters_fit, check_trained
from gpt2_jax.config.mixture import parse_mixture
from gpt2_jax.config.model import ACTIVATIONS, GATED_ACTIVATIONS, ModelConfig
from gpt2_jax.config.mup import check_mup
from gpt2_jax.config.outputs import CheckpointConfig, EvalConfig, LogConfig
from gpt2_jax.config.rates import parse_multipliers
from gpt2_jax.config.sections import (
    Config,
    DataConfig,
    MeshConfig,
    OptimizerConfig,
    ScheduleConfig,
    Seeds,
    TrainConfig,
    knobs,
)
from gpt2_jax.errors import UserError, did_you_mean, short_repr

__all__ = [
    "ACTIVATIONS",
    "GATED_ACTIVATIONS",
    "CheckpointConfig",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "EvalConfig",
    "Knob",
    "LogConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "check_resume",
    "default",
    "from_dict",
    "knobs",
    "load_config",
    "to_dict",
    "with_vocab_size",
]

# Sections and knobs that must not change when a run resumes, because they decide what is learned.
_FIXED_ON_RESUME = frozenset(
    (
        *("model", "data", "optimizer", "schedule"),
        *("compute.prng", "train.batch_size"),
        *("train.seed", "train.init_seed", "train.data_seed", "train.dropout_seed"),
        *("train.spike_threshold", "train.spike_window", "train.max_spikes"),
    )
)


# Exceptions to whole sections in `_FIXED_ON_RESUME`.
_FREE_ON_RESUME = frozenset({"schedule.allow_rewind"})


def default() -> ml_collections.ConfigDict:
    """Returns the locked ConfigDict with all defaults that a config file starts from."""
    sections: dict[str, dict[str, Any]] = {}
    for knob in knobs():
        section, name = knob.key.split(".")
        value = config_dict.placeholder(knob.type) if knob.default is None else knob.default
        sections.setdefault(section, {})[name] = value
    return ml_collections.ConfigDict(sections).lock()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Runs a config file's `get_config()` and applies overrides.

    Args:
      path: a Python file that defines `get_config() -> ml_collections.ConfigDict`. If that takes
        parameters, `FILE:name=value,...` sets them.
      overrides: `section.key=value` strings, applied in order.

    Raises:
      UserError: for a missing or broken file, an unknown key, a wrong type or a value out of range.
    """
    # The file's argument may be longer than a file's name.
    file, argument = split_argument(arguments.path_name("path", path))
    arguments.path("--config", file)
    overrides = arguments.texts("overrides", overrides, example="['train.total_steps=20']")
    by_key = {knob.key: knob for knob in knobs()}
    values = _flatten(run_config_file(file, argument))
    overridden = _parsed(overrides, by_key)
    for key, value in values.items():
        if key in by_key and key not in overridden:
            try:
                checked(by_key[key], value)
            except UserError as error:
                raise UserError(f"{file}: {error}") from error
    return _from_flat(values | overridden)


def _parsed(overrides: Sequence[str], by_key: Mapping[str, Knob]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if key.startswith("--"):
            plain = override.removeprefix("--config.").lstrip("-")
            raise UserError(f"overrides: write {short_repr(plain)}, not {short_repr(override)}")
        if not equals:
            raise UserError(f"--config.{key} needs a value: --config.{key}=VALUE")
        if key not in by_key:
            raise unknown_key(key, by_key)
        values[key] = parse(by_key[key], text)
    return values


def from_dict(values: Mapping[str, Any]) -> Config:
    """Builds a checked Config from nested mappings; knobs left out keep their defaults.

    Raises:
      UserError: for an unknown key, a wrong type or a value out of range.
    """
    return _from_flat(_flatten(arguments.mapping("values", values, example="{'train': {...}}")))


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Returns the config as nested plain values for JSON; `from_dict` is its inverse."""
    return dataclasses.asdict(config)


def with_vocab_size(config: Config, vocab_size: int) -> Config:
    """Returns the config with `model.vocab_size` filled in if it is unset.

    Raises:
      UserError: for a size that does not fit the other knobs.
    """
    if config.model.vocab_size is not None:
        return config
    model = dataclasses.replace(config.model, vocab_size=vocab_size)
    config = dataclasses.replace(config, model=model)
    _check_together(config)
    return config


def check_resume(saved: Config, new: Config, workdir: str | Path) -> None:
    """Refuses a config that would not continue the run that `saved` started.

    The folders of the data may have other names than before: whoever opens them has to compare
    their fingerprint.

    Raises:
      UserError: naming every knob that differs and must not, or a `train.total_steps` that shrank.
    """
    old_values, new_values = _flatten(to_dict(saved)), _flatten(to_dict(new))
    old_normalized, new_normalized = _normalized(old_values), _normalized(new_values)
    changed = [
        f"{key} ({old_values[key]!r} -> {value!r})"
        for key, value in new_values.items()
        if old_values[key] != value
        and old_normalized[key] != new_normalized[key]
        and key not in _FREE_ON_RESUME
        and not _FIXED_ON_RESUME.isdisjoint((key, key.split(".")[0]))
    ]
    if changed:
        raise UserError(
            f"{workdir} holds a run with another config: {', '.join(changed)} must not change on "
            "resume; restore these values or choose another --workdir"
        )
    if new.train.total_steps < saved.train.total_steps:
        raise UserError(
            f"train.total_steps must be at least {saved.train.total_steps}, as in the run in "
            f"{workdir}, not {new.train.total_steps}; use --stop_at_step to stop early"
        )


def _normalized(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values, for comparison, with what they mean in place of how they are written.

    The folders of the data become their weights, and an unset seed of a stream `train.seed`.
    """
    normalized = dict(values)
    for stream in Seeds._fields:
        if values[key := f"train.{stream}_seed"] is None:
            normalized[key] = values["train.seed"]
    if values["data.path"] is not None:
        normalized["data.path"] = [1]
    if (mixture := values["data.mixture"]) is not None:
        normalized["data.mixture"] = list(parse_mixture(mixture).values())
    return normalized


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    sections = [section.name for section in dataclasses.fields(Config)]
    for section, entries in values.items():
        if section not in sections:
            hint = did_you_mean(str(section), sections)
            raise UserError(f"config has no section {short_repr(section)}{hint}")
        if not isinstance(entries, Mapping):
            raise UserError(
                f"config section {section!r} must hold knobs, not {short_repr(entries)}"
            )
        flat.update({f"{section}.{name}": value for name, value in entries.items()})
    return flat


def _from_flat(values: Mapping[str, Any]) -> Config:
    by_key = {knob.key: knob for knob in knobs()}
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key not in by_key:
            raise unknown_key(key, by_key)
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = checked(by_key[key], value)
    defaults = Config()
    built = {
        name: dataclasses.replace(getattr(defaults, name), **entries)
        for name, entries in sections.items()
    }
    config = dataclasses.replace(defaults, **built)
    _check_together(config)
    return config


def _check_together(config: Config) -> None:
    """Checks knobs against each other."""
    model, compute, train, schedule = config.model, config.compute, config.train, config.schedule
    if config.data.mixture is not None:
        if config.data.path is not None:
            raise UserError(
                "data.path and data.mixture exclude each other: unset one, as with "
                "--config.data.path=none"
            )
        parse_mixture(config.data.mixture)
    parse_fields(config.data.fields)
    if model.d_model % model.num_heads:
        raise UserError(
            f"model.d_model={model.d_model} must be a multiple of model.num_heads={model.num_heads}"
        )
    if model.vocab_size is not None and model.padded_vocab_size > MOST:
        raise UserError(
            f"model.vocab_size={model.vocab_size}, padded to a multiple of model.vocab_multiple="
            f"{model.vocab_multiple}, must be at most {MOST}"
        )
    if model.position == "rotary" and model.head_dim % 2:
        raise UserError(
            f"model.position=rotary needs an even head width: model.d_model={model.d_model} / "
            f"model.num_heads={model.num_heads} is {model.head_dim}"
        )
    if model.attention_scale is not None and not model.scale_attn_weights:
        raise UserError(
            f"model.attention_scale={model.attention_scale:g} needs "
            "model.scale_attn_weights=true: unset one of them"
        )
    check_mup(model, config.optimizer)
    check_trained(model, config.optimizer)
    if not config.train.init_model:  # else the model is not known yet
        check_adapters_fit(model)
    if model.num_layers % (compute.scan_unroll or 1):
        raise UserError(
            f"compute.scan_unroll={compute.scan_unroll} must divide "
            f"model.num_layers={model.num_layers}: set --config.compute.scan_unroll=1, or another "
            "divisor"
        )
    chunk = min(compute.loss_chunk or 0, model.context_length)
    if chunk and model.context_length % chunk:
        raise UserError(
            f"compute.loss_chunk={compute.loss_chunk} must divide "
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
            f"schedule.learning_rate={schedule.learning_rate:g}: lower it too, for example with "
            f"--config.schedule.min_learning_rate={schedule.learning_rate / 10:g}"
        )
    if schedule.warmup_steps > train.total_steps:
        raise UserError(
            f"schedule.warmup_steps={schedule.warmup_steps} must not exceed "
            f"train.total_steps={train.total_steps}: lower it too, for example with "
            f"--config.schedule.warmup_steps={max(train.total_steps // 10, 1)}"
        )
    check_lengths(config.eval.context_lengths, model)
    check_best(config)
    parse_multipliers(config.optimizer.rate_multipliers)
    axes = dataclasses.asdict(config.mesh)
    if list(axes.values()).count(-1) > 1 or 0 in axes.values():
        raise UserError(f"mesh axes must be positive, at most one of them -1, not {axes}")
