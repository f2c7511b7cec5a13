"""Describes what an engine's slots and its cache hold at one moment, for people who watch it."""

from __future__ import annotations

from typing import NamedTuple

from gpt2_jax.inference.requests import Choice


class SlotUse(NamedTuple):
    """Describes the text in one slot; all are 0 where there is none.

    Attributes:
      prompt: tokens of its prompt.
      drawn: tokens drawn behind it.
      length: tokens of which the slot holds keys and values, but for the last, which comes next.
    """

    prompt: int = 0
    drawn: int = 0
    length: int = 0

    @property
    def busy(self) -> bool:
        """Returns whether there is a text."""
        return self.length > 0


class Reading(NamedTuple):
    """Describes a prompt that is being read: tokens read so far, of all but the last."""

    done: int
    total: int


class Occupancy(NamedTuple):
    """Holds the state of an engine between two steps.

    Attributes:
      slots: one for each slot.
      reading: the prompts that are being read, in turns.
      waiting: texts that are not in a slot yet, those being read included.
      room: tokens that each slot has room for.
      cache_bytes: of keys and values of all slots together, used or not.
    """

    slots: tuple[SlotUse, ...]
    reading: tuple[Reading, ...]
    waiting: int
    room: int
    cache_bytes: int

    @property
    def running(self) -> int:
        """Returns how many texts are in a slot."""
        return sum(use.busy for use in self.slots)

    @property
    def used_bytes(self) -> int:
        """Returns the bytes of the cache that hold a token's keys and values."""
        held = sum(use.length for use in self.slots)
        return self.cache_bytes * held // (len(self.slots) * self.room)


def slot_use(choice: Choice | None, max_length: int) -> SlotUse:
    """Returns how a text uses its slot.

    Args:
      choice: the text, or None.
      max_length: of the engine; a longer text has slid, as `Engine` does it.
    """
    if choice is None:
        return SlotUse()
    prompt, drawn = len(choice.request.prompt), len(choice.tokens)
    length, half = prompt + drawn, max_length // 2
    if length >= max_length and choice.request.slide:
        length = half + (length - max_length) % (max_length - half)
    return SlotUse(prompt, drawn, min(length, max_length))
