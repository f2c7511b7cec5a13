"""The fields of examples, as `data.fields` writes them."""

from __future__ import annotations

from typing import NamedTuple

from gpt2_jax.errors import UserError

TEXT_FIELD = "text"
"""The field of a line without an answer, all of which is learned."""


class Fields(NamedTuple):
    """Names the fields of a line that hold an example."""

    prompt: str
    answer: str

    def __str__(self) -> str:
        """Returns what `parse_fields` reads, always in the same order."""
        return ",".join(f"{role}:{name}" for role, name in self._asdict().items())


def parse_fields(text: str, knob: str = "data.fields") -> Fields:
    """Returns the names of `prompt:NAME,answer:NAME`, in any order.

    Args:
      text: the value of the knob.
      knob: the knob or the flag that it belongs to, which begins an error message.

    Raises:
      UserError: for a string of another form, a part that is missing or named twice, or one field
        for both.
    """
    names: dict[str, str] = {}
    for entry in text.split(","):
        role, _, name = (part.strip() for part in entry.partition(":"))
        if role not in Fields._fields or not name or role in names:
            raise UserError(
                f"{knob}={text!r}: {entry.strip()!r} must be prompt:NAME or answer:NAME, each "
                "once, as in prompt:question,answer:reply"
            )
        names[role] = name
    if missing := [role for role in Fields._fields if role not in names]:
        raise UserError(
            f"{knob}={text!r} does not name the field of the {missing[0]}: add "
            f"{missing[0]}:NAME, as in prompt:question,answer:reply"
        )
    if names["prompt"] == names["answer"]:
        raise UserError(
            f"{knob}={text!r} names one field as prompt and answer: name two, or call the field "
            f"{TEXT_FIELD!r} in the file to learn all of it"
        )
    return Fields(**names)
