"""The algebra of sweep files: settings of knobs, and how lists of them are combined."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from gpt2_jax.config.arguments import LARGEST_SEED, integer, mapping, text
from gpt2_jax.errors import UserError, error_text, short_repr

SEED = "train.seed"
"""The knob whose value is no part of an arm's name, because an arm is repeated over its seeds."""

Value = str | int | float | bool | None
Where = Callable[[Mapping[str, Any]], bool]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Holds the values of some knobs.

    Attributes:
      overrides: {knob: value}.
      labels: what names the setting, in order: `knob=value`, or the name of an arm. The seed has no
        label.
    """

    overrides: Mapping[str, Value]
    labels: tuple[str, ...]

    @property
    def arm(self) -> str:
        """Returns the name of the arm that the setting belongs to, whatever its seed."""
        return " ".join(self.labels) or "base"

    @property
    def without_seed(self) -> dict[str, Value]:
        """Returns the overrides but that of the seed."""
        return {key: value for key, value in self.overrides.items() if key != SEED}

    def includes(self, other: Setting) -> bool:
        """Returns whether this setting has all labels and values of another."""
        same = all(
            key in self.overrides and self.overrides[key] == value
            for key, value in other.overrides.items()
        )
        return same and {*other.labels} <= {*self.labels}


class Points(Sequence[Setting]):
    """Lists settings in the order in which they run; see `axis`, `product`, `zipped`, `chain`."""

    def __init__(self, settings: Iterable[Setting], what: str, where: Where | None = None) -> None:
        """Lists the settings for which `where`, given the overrides, is true.

        Raises:
          UserError: if `where` fails, or none is left; `what` begins the message.
        """
        self._settings = tuple(settings)
        if where is not None:
            self._settings = tuple(each for each in self._settings if _holds(what, where, each))
            if not self._settings:
                raise UserError(f"{what}: where= is true of no setting, so that nothing would run")

    @overload
    def __getitem__(self, index: int) -> Setting: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Setting]: ...
    def __getitem__(self, index: int | slice) -> Setting | Sequence[Setting]:
        return self._settings[index]

    def __len__(self) -> int:
        return len(self._settings)

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Points) and self._settings == other._settings

    def __repr__(self) -> str:
        return f"Points({[setting.arm for setting in self._settings]})"


def axis(key: str, values: Iterable[Value], *, where: Where | None = None) -> Points:
    """Returns a setting for each value of a knob.

    Args:
      key: the knob, such as `model.position`.
      values: its values.
      where: keeps the settings for which it is true; it is given {knob: value}.

    Raises:
      UserError: if there are no values, or one is not a string, a number, a truth value or None.
    """
    key = _knob_name("axis", key)
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise UserError(f"axis({key!r}): values must be a list, not {short_repr(values)}")
    plain = [plain_value(key, value) for value in values]
    if not plain:
        raise UserError(f"axis({key!r}) has no values")
    labels = [() if key == SEED else (f"{key}={value_text(value)}",) for value in plain]
    settings = [Setting({key: value}, label) for value, label in zip(plain, labels, strict=True)]
    return Points(settings, f"axis({key!r})", where)


def arms(named: Mapping[str, Mapping[str, Value]], *, where: Where | None = None) -> Points:
    """Returns a setting for each name, for arms that differ in several knobs.

    Args:
      named: {name of an arm: {knob: value}}; an arm without overrides is the base config.
      where: as for `axis`.

    Raises:
      UserError: if there are no arms, or a name, a knob's name or a value has a wrong type.
    """
    example = "{'lion': {'optimizer.name': 'lion'}}"
    named = mapping("arms", named, example=example)
    if not named:
        raise UserError(f"arms() has no arms: write, for example, arms({example})")
    settings = []
    for name, overrides in named.items():
        if not text("arms: a name", name).strip() or name != " ".join(name.split()):
            raise UserError(f"arms: a name must be words with single spaces, not {name!r}")
        overrides = mapping(f"arms: {name!r}", overrides, example="{'optimizer.name': 'lion'}")
        settings.append(Setting(checked_overrides(f"arms: {name!r}", overrides), (name,)))
    return Points(settings, "arms", where)


def seeds(count: int, *, first: int = 0) -> Points:
    """Returns the values `first`, `first + 1`, ... of `train.seed`.

    Arms that have the same seeds see the same data in the same order, and are compared in pairs.

    Raises:
      UserError: if there is no seed, or one is out of range.
    """
    count = integer("seeds: the number of seeds", count, low=1)
    first = integer("seeds: first", first, low=0, high=LARGEST_SEED + 1 - count)
    return axis(SEED, range(first, first + count))


def logspace2(low: int, high: int) -> list[float]:
    """Returns the powers of two from 2^low to 2^high, both included, for a grid of rates.

    Raises:
      UserError: if an exponent is not an integer, or `high` is below `low`.
    """
    low = integer("logspace2: low", low, low=-1000, high=1000)
    high = integer("logspace2: high", high, low=low, high=1000)
    return [2.0**exponent for exponent in range(low, high + 1)]


def product(*parts: Points, where: Where | None = None) -> Points:
    """Returns each combination of one setting from every part; the last part varies fastest.

    Args:
      parts: settings of different knobs.
      where: as for `axis`; it is given the combined overrides.

    Raises:
      UserError: if there are no parts, or two of them set the same knob.
    """
    _check_parts("product", parts)
    return Points([joined("product", each) for each in itertools.product(*parts)], "product", where)


def zipped(*parts: Points, where: Where | None = None) -> Points:
    """Returns the first settings of all parts combined, then the second ones, and so on.

    The arguments are those of `product`.

    Raises:
      UserError: if the parts have different lengths, there are none, or two set the same knob.
    """
    _check_parts("zipped", parts)
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(str(len(part)) for part in parts)
        raise UserError(f"zipped: the parts must have the same length, not {lengths}")
    settings = [joined("zipped", each) for each in zip(*parts, strict=True)]
    return Points(settings, "zipped", where)


def chain(*parts: Points, where: Where | None = None) -> Points:
    """Returns the settings of all parts, one part after the other.

    The arguments are those of `product`, but parts may set the same knobs.

    Raises:
      UserError: if there are no parts.
    """
    _check_parts("chain", parts)
    return Points(itertools.chain(*parts), "chain", where)


def checked_overrides(what: str, overrides: Mapping[str, Value]) -> dict[str, Value]:
    """Returns {knob: value} with values of Python's own types.

    Raises:
      UserError: if a name or a value has a wrong type; `what` begins the message.
    """
    overrides = mapping(what, overrides, example="{'model.num_layers': 4}")
    return {_knob_name(what, key): plain_value(key, value) for key, value in overrides.items()}


def plain_value(key: str, value: Any) -> Value:
    """Returns a value of a knob in its Python type; a scalar of NumPy is converted.

    Raises:
      UserError: if it is not a string, a number, a truth value or None.
    """
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise UserError(
        f"{key} must be a string, a number, a truth value or None, not {short_repr(value)}"
    )


def value_text(value: Value) -> str:
    """Returns a value as `--config.section.key=` takes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def joined(what: str, settings: Sequence[Setting]) -> Setting:
    """Returns the setting that has the overrides and labels of all of these.

    Raises:
      UserError: if two of them set the same knob; `what` begins the message.
    """
    overrides: dict[str, Value] = {}
    for setting in settings:
        if twice := sorted({*overrides} & {*setting.overrides}):
            raise UserError(f"{what}: {twice[0]} is set by two parts, of which one would be lost")
        overrides |= setting.overrides
    return Setting(overrides, tuple(label for setting in settings for label in setting.labels))


def _knob_name(what: str, key: Any) -> str:
    section, dot, name = text(f"{what}: a knob", key).partition(".")
    if not (section and dot and name):
        raise UserError(f"{what}: a knob is named section.name, not {short_repr(key)}")
    return key


def _check_parts(what: str, parts: Sequence[Any]) -> None:
    for part in parts:
        if not isinstance(part, Points):
            hint = "give it axis(...), arms(...), seeds(...) or a combination of them"
            raise UserError(f"{what}: {hint}, not {short_repr(part)}")
    if not parts:
        raise UserError(f"{what}() has no parts")


def _holds(what: str, where: Where, setting: Setting) -> bool:
    try:
        return bool(where(dict(setting.overrides)))
    except Exception as error:  # the function is the user's
        reason = f"{type(error).__name__}: {error_text(error)}"
        raise UserError(f"{what}: where= fails for {setting.arm}: {reason}") from error
