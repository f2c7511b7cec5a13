"""Describes changes inside of a model, and turns them into the edits of its blocks.

Every change is of a value that the model computes (`model.taps`): heads, MLPs and neurons are
multiplied by a factor, the causal mask is taken off, and activations of another text are put in.
A factor of 1 leaves the model's logits as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import ModelConfig
from gpt2_jax.errors import UserError, did_you_mean, short_repr
from gpt2_jax.interpret.programs import BlockEdits
from gpt2_jax.model.taps import Edit


class InterventionError(UserError):
    """Reports a change that cannot be made, as the model has no place for it or it is named twice.

    The message names the entry, such as `heads[1]`: the second of that list, or dictionary.
    """


class InterventionFormError(InterventionError):
    """Reports a change that is not described as `parse` takes it."""


@dataclasses.dataclass(frozen=True)
class Swap:
    """Puts an activation of another text in the place of this text's.

    Attributes:
      site: "resid_post" (the residual stream behind a block), "mlp" (its MLP's output) or "z" (one
        head's output before the projection).
      layer: of the block.
      position: in this text.
      donor: the activation of the other text: [D], or [K] for "z".
      head: for "z".
    """

    site: str
    layer: int
    position: int
    donor: np.ndarray
    head: int = 0

    def check(self, name: str, config: ModelConfig, num_tokens: int) -> None:
        """Raises InterventionError, with a name, for a place or a width that the run has not."""
        if self.site not in SITES:
            raise InterventionError(
                f"{name}: site must be one of {', '.join(SITES)}, not {self.site}"
            )
        _in_range(name, "layer", self.layer, config.num_layers)
        _in_range(name, "position", self.position, num_tokens, "head", self.head, config.num_heads)
        width = config.head_dim if self.site == "z" else config.d_model
        if self.donor.shape != (width,):
            raise InterventionError(
                f"{name}: the {self.site} that is put in has {self.donor.size} numbers, and the "
                f"model's have {width}"
            )


@dataclasses.dataclass(frozen=True)
class Interventions:
    """Holds all changes of one run; the defaults change nothing.

    Attributes:
      heads: {(layer, head): factor of the head's output}.
      mlps: {layer: factor of the MLP's output}.
      neurons: {(layer, neuron): factor of its activation}.
      unmasked: layers whose queries see all tokens, as in BERT.
      swaps: activations of other texts.
    """

    heads: dict[tuple[int, int], float] = dataclasses.field(default_factory=dict)
    mlps: dict[int, float] = dataclasses.field(default_factory=dict)
    neurons: dict[tuple[int, int], float] = dataclasses.field(default_factory=dict)
    unmasked: Sequence[int] = ()
    swaps: Sequence[Swap] = ()

    def __bool__(self) -> bool:
        """Returns whether anything is changed."""
        return bool(self.heads or self.mlps or self.neurons or self.unmasked or self.swaps)

    def check(self, config: ModelConfig, num_tokens: int) -> None:
        """Raises InterventionError for a layer, head, neuron or position that the run has not."""
        L, H, F = config.num_layers, config.num_heads, config.mlp_width
        for i, (layer, head) in enumerate(self.heads):
            _in_range(f"heads[{i}]", "layer", layer, L, "head", head, H)
        for i, (layer, neuron) in enumerate(self.neurons):
            _in_range(f"neurons[{i}]", "layer", layer, L, "neuron", neuron, F)
        for i, layer in enumerate(self.mlps):
            _in_range(f"mlps[{i}]", "layer", layer, L)
        for i, layer in enumerate(self.unmasked):
            _in_range(f"unmasked[{i}]", "layer", layer, L)
        for i, swap in enumerate(self.swaps):
            swap.check(f"swaps[{i}]", config, num_tokens)

    def of_layer(self, layer: int, config: ModelConfig, size: int, length: int) -> BlockEdits:
        """Returns the edits of one block: all of them, so that every block is the same program.

        Args:
          layer: of the block.
          config: of the model.
          size: T, to which the text is padded.
          length: tokens of the text itself.
        """
        H, K, F, D = config.num_heads, config.head_dim, config.mlp_width, config.d_model
        of_heads = np.ones((H, 1), np.float32)
        for (at, head), factor in self.heads.items():
            if at == layer:
                of_heads[head] = factor
        of_neurons = np.ones(F, np.float32)
        for (at, neuron), factor in self.neurons.items():
            if at == layer:
                of_neurons[neuron] = factor
        # Padding is behind the text, where only an unmasked query would see it.
        shown = (np.arange(size) < length) & (layer in self.unmasked)
        return BlockEdits(
            seen=Edit(replaced=jnp.asarray(shown), donor=jnp.ones((), bool)),
            z=Edit(jnp.asarray(of_heads), *self._donors("z", layer, (size, H, K))),
            neurons=Edit(jnp.asarray(of_neurons)),
            mlp=Edit(
                jnp.float32(self.mlps.get(layer, 1.0)), *self._donors("mlp", layer, (size, D))
            ),
            resid_post=Edit(1.0, *self._donors("resid_post", layer, (size, D))),
        )

    def _donors(self, site: str, layer: int, shape: tuple[int, ...]) -> tuple[Any, Any]:
        replaced = np.zeros((*shape[:-1], 1), bool)
        donor = np.zeros(shape, np.float32)
        for swap in self.swaps:
            if (swap.site, swap.layer) == (site, layer):
                at = (swap.position, swap.head) if site == "z" else swap.position
                replaced[at], donor[at] = True, swap.donor
        return jnp.asarray(replaced), jnp.asarray(donor)


def parse(value: Any, donor: Callable[[str], Any]) -> Interventions:
    """Returns the interventions that JSON describes, as `docs/explorer.md` says.

    Args:
      value: an object with lists `heads` [layer, head, factor], `mlps` [layer, factor], `neurons`
        [layer, neuron, factor], `unmasked` [layer], and `swaps` {site, layer, head, position, from:
        {run, position}}; each may be missing.
      donor: returns the run of an id, from which activations are taken; raises UserError for an
        unknown one.

    Raises:
      InterventionFormError: for anything else.
      InterventionError: for a head, MLP or neuron that is named twice, or a swap that the other run
        has no place for.
    """
    known = ("heads", "mlps", "neurons", "unmasked", "swaps")
    if not isinstance(value, dict) or not all(isinstance(value.get(k, []), list) for k in known):
        raise InterventionFormError(f"changes must be an object with lists {', '.join(known)}")
    for name in value:
        if name not in known:
            raise InterventionFormError(f"unknown {short_repr(name)}{did_you_mean(name, known)}")
    entries = {
        name: [(f"{name}[{i}]", entry) for i, entry in enumerate(value.get(name, []))]
        for name in known
    }
    return Interventions(
        heads=_factors(entries["heads"], 2),
        mlps={layer: factor for (layer,), factor in _factors(entries["mlps"], 1).items()},
        neurons=_factors(entries["neurons"], 2),
        unmasked=[_numbers(name, [layer], 1)[0] for name, layer in entries["unmasked"]],
        swaps=[_swap(*entry, donor) for entry in entries["swaps"]],
    )


def _factors(entries: list[tuple[str, Any]], count: int) -> dict[Any, float]:
    """Returns {`count` indices: factor} of (name, entry); none may be named twice."""
    factors = {}
    for name, entry in entries:
        *indices, factor = _numbers(name, entry, count, factor=True)
        if tuple(indices) in factors:
            raise InterventionError(f"{name} names {indices} again: give it one factor")
        factors[tuple(indices)] = factor
    return factors


def _numbers(name: str, entry: Any, count: int, *, factor: bool = False) -> list[Any]:
    """Returns a list of `count` indices, with a factor behind them if there is to be one."""
    entry = entry if isinstance(entry, list) else [entry]
    indices = entry[:count]
    good = len(entry) == count + factor and all(type(index) is int for index in indices)
    if factor and good:
        last = entry[count]
        good = type(last) in (int, float) and math.isfinite(last) and abs(last) < 1e6
    if not good:
        wanted = "indices and a factor" if factor else "indices"
        raise InterventionFormError(f"{name} must hold {wanted}, not {short_repr(entry)}")
    return entry


def _swap(name: str, entry: Any, donor: Callable[[str], Any]) -> Swap:
    """Returns a swap whose activation is read from the other run."""
    if not isinstance(entry, dict) or entry.get("site") not in tuple(SITES):
        raise InterventionFormError(
            f"{name} must be an object whose site is one of {', '.join(SITES)}, not "
            f"{short_repr(entry)}"
        )
    source = entry.get("from")
    if not isinstance(source, dict) or not isinstance(source.get("run"), str):
        raise InterventionFormError(f"{name} needs from: {{run: id, position: number}}")
    layer, position, at = _numbers(
        f"{name} (layer, position, from.position)",
        [entry.get("layer"), entry.get("position"), source.get("position")],
        3,
    )
    head = _numbers(f"{name} (head)", [entry.get("head", 0)], 1)[0]
    try:
        run = donor(source["run"])
    except UserError as error:
        raise InterventionError(f"{name}: {error}") from error
    config = run.subject.config
    _in_range(name, "layer", layer, config.num_layers, "from.position", at, len(run))
    _in_range(name, "head", head, config.num_heads)
    vector = SITES[entry["site"]](run, layer, at, head).copy()  # a view keeps its run
    return Swap(entry["site"], layer, position, vector, head)


SITES: dict[str, Callable[[Any, int, int, int], np.ndarray]] = {
    "resid_post": lambda run, layer, position, head: run.residual[2 * layer + 2, position],
    "mlp": lambda run, layer, position, head: run.mlp_out[layer, position],
    "z": lambda run, layer, position, head: run.z[layer, position, head],
}
"""Site of a swap -> (run, layer, position, head) -> the activation that is taken from there."""

NO_INTERVENTIONS = Interventions()
"""Changes nothing."""


def _in_range(entry: str, *named: Any) -> None:
    """Refuses an entry for (name, value, limit) of its parts, one behind the other."""
    for name, value, limit in zip(named[::3], named[1::3], named[2::3], strict=True):
        if not 0 <= value < limit:
            raise InterventionError(
                f"{entry}: {name} must be between 0 and {limit - 1}, not {value}"
            )
