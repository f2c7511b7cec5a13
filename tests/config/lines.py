"""What the tests of the config share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt2_jax.config import Config, from_dict, knobs
from gpt2_jax.errors import UserError

KNOBS = {knob.key: knob for knob in knobs()}
HEADER = "from gpt2_jax.config import default\n\ndef get_config():\n    c = default()\n"


def get_knob(config: Config, key: str) -> Any:
    """Returns the value of `section.name`."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def line_of(error: pytest.ExceptionInfo[UserError], path: Path | None = None) -> str:
    """Returns the message of a mistake, which must be a short line apart from the file's name."""
    message = str(error.value)
    assert "\n" not in message
    # Temporary folders have long names; those of users do not.
    assert len(message.replace(str(path), "config.py")) <= 200, message
    return message


def mistake(**sections: dict[str, Any]) -> str:
    """Returns the message with which the sections are refused."""
    with pytest.raises(UserError) as error:
        from_dict(sections)
    return line_of(error)
