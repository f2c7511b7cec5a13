"""Takes the model section of a run's config from the model that it starts from."""

from __future__ import annotations

import dataclasses
from typing import Any

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.config.lora import check_adapters_fit, check_has_base
from gpt2_jax.errors import UserError
from gpt2_jax.formats.load import open_model

# Knobs that a run sets for itself: they say how it trains, and change nothing that is read.
_OWN = ("dropout", "lora_rank", "lora_alpha", "lora_targets", "lora_dropout")
# The knobs whose rows of parameters `train.init_resize` crops or grows.
RESIZABLE = ("context_length", "vocab_size")


def resolve_model(config: Config, saved: Config | None = None) -> Config:
    """Returns the config with the model of `train.init_from`, if `train.init_model` is set.

    Its tokenizer becomes `data.tokenizer`. Dropout and the knobs of LoRA stay the config's, and
    with `train.init_resize` the sizes of context and vocabulary, too.

    Args:
      config: of a run that starts or resumes.
      saved: the config of the run that is resumed, which has the model already, so that the model
        that it started from may be gone; None for a new run.

    Raises:
      UserError: for a knob of the model that is set to something else, if `train.init_from` is not
        a model, or if it is unset and needed.
      StorageError: if no checkpoint of it is good.
    """
    if not config.train.init_model:
        check_has_base(config.model, config.train)
        return config
    if (name := config.train.init_from) is None:
        raise UserError(
            "train.init_from is not set, and train.init_model takes the model from there: name a "
            "model with --config.train.init_from=M"
        )
    if saved is not None and (saved.train.init_from, saved.train.init_model) == (name, True):
        model, tokenizer = saved.model, saved.data.tokenizer
    else:
        with open_model(name) as reader:
            model, tokenizer = reader.config.model, reader.tokenizer.name
    own = _OWN + RESIZABLE if config.train.init_resize else _OWN
    _refuse_others(name, config.model, model, own)
    kept = {field: getattr(config.model, field) for field in own}
    data = dataclasses.replace(config.data, tokenizer=tokenizer)
    resolved = dataclasses.replace(config, model=dataclasses.replace(model, **kept), data=data)
    # Knobs are checked against each other again, now that the model is known.
    resolved = config_lib.from_dict(config_lib.to_dict(resolved))
    check_adapters_fit(resolved.model)
    return resolved


def _refuse_others(name: str, given: ModelConfig, model: ModelConfig, own: tuple[str, ...]) -> None:
    """Raises UserError for a knob that has neither its default nor the value of the model."""
    default = ModelConfig()
    for field in dataclasses.fields(ModelConfig):
        value, theirs = getattr(given, field.name), getattr(model, field.name)
        if field.name in own or value in (getattr(default, field.name), theirs):
            continue
        advice = f"leave model.{field.name} unset"
        if field.name in RESIZABLE:
            advice += ", or set train.init_resize=true to crop or grow its rows"
        raise UserError(
            f"model.{field.name}={_text(value)}, but train.init_model takes the model from "
            f"train.init_from={name}, where it is {_text(theirs)}: {advice}"
        )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"
