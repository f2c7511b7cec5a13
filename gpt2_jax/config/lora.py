"""Checks the knobs that say what is trained: adapters (LoRA), and frozen parameters."""

from __future__ import annotations

from gpt2_jax.config.model import ModelConfig
from gpt2_jax.config.sections import OptimizerConfig, TrainConfig
from gpt2_jax.errors import UserError, short_repr

LORA_TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_gate", "mlp.c_proj")
"""The linear layers that can have adapters, by their names in a block."""

_GATE = "mlp.c_gate"


def parse_targets(targets: str) -> tuple[str, ...]:
    """Returns the linear layers of `model.lora_targets`, in the order in which they are given."""
    return tuple(name.strip() for name in targets.split(","))


def parse_freeze(freeze: str) -> tuple[str, ...]:
    """Returns the patterns of `optimizer.freeze`.

    Raises:
      UserError: for an empty pattern between commas.
    """
    if not freeze.strip():
        return ()
    patterns = tuple(pattern.strip() for pattern in freeze.split(","))
    if "" in patterns:
        raise UserError(
            f"optimizer.freeze={short_repr(freeze)} has an empty pattern: write names with single "
            "commas between them, such as wte,wpe,h.*.mlp"
        )
    return patterns


def check_trained(model: ModelConfig, optimizer: OptimizerConfig) -> None:
    """Refuses adapters that could not be trained, and knobs that contradict them.

    Raises:
      UserError: naming the knob and the fix.
    """
    frozen = parse_freeze(optimizer.freeze)
    rank = model.lora_rank
    if not rank:
        return
    where = f"model.lora_rank={rank}"
    if frozen:
        raise UserError(
            f"optimizer.freeze={optimizer.freeze} has no effect with {where}, which freezes "
            "everything but the adapters: unset one of them"
        )
    if model.mup_base_width is not None:
        raise UserError(
            f"{where} and model.mup_base_width={model.mup_base_width} exclude each other, because "
            "muP has no learning rates for adapters: unset one of them"
        )
    if model.lora_alpha == 0:
        raise UserError(
            f"model.lora_alpha=0 multiplies the adapters of {where} by zero: set it above 0, for "
            f"example to {2 * rank}"
        )
    targets = parse_targets(model.lora_targets)
    for name in targets:
        if name not in LORA_TARGETS:
            raise UserError(
                f"model.lora_targets: {short_repr(name)} is no linear layer: choose from "
                f"{', '.join(LORA_TARGETS)}"
            )
    if twice := next((name for name in targets if targets.count(name) > 1), None):
        raise UserError(f"model.lora_targets names {twice} twice: name it once")


def check_adapters_fit(model: ModelConfig) -> None:
    """Refuses adapters that the model has no place for, once it is known.

    Raises:
      UserError: naming the knob and the fix.
    """
    if model.lora_rank > model.d_model:
        raise UserError(
            f"model.lora_rank={model.lora_rank} must be at most model.d_model={model.d_model}, the "
            "rank of the matrices that adapters are added to"
        )
    if model.lora_rank and _GATE in parse_targets(model.lora_targets) and not model.is_gated:
        others = ", ".join(name for name in LORA_TARGETS if name != _GATE)
        raise UserError(
            f"model.lora_targets names {_GATE}, which model.activation={model.activation} does "
            f"not have: choose from {others}"
        )


def check_has_base(model: ModelConfig, train: TrainConfig) -> None:
    """Refuses adapters of no model, once a run is about to start.

    Raises:
      UserError: naming the knob and the fix.
    """
    if model.lora_rank and not train.init_from:
        raise UserError(
            f"model.lora_rank={model.lora_rank} trains adapters of an existing model: name it with "
            "--config.train.init_from=M, or set model.lora_rank=0"
        )
