"""What was meant by a name that no knob and no section has."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from gpt2_jax.config.knob import Knob
from gpt2_jax.config.sections import Config, knobs
from gpt2_jax.config.synonyms import ELSEWHERE, SYNONYMS
from gpt2_jax.errors import UserError, did_you_mean, short_repr


def suggest(name: str) -> str:
    """Returns a hint for a name that a config file sets and that no knob has in that section."""
    sections = [section.name for section in dataclasses.fields(Config)]
    namesakes = [knob.key for knob in knobs() if knob.key.partition(".")[2] == name]
    if key := namesakes[0] if namesakes else SYNONYMS.get(name):
        return f"; did you mean {key!r}?"
    if name in ELSEWHERE:
        return f"; did you mean {ELSEWHERE[name]}?"
    return did_you_mean(name, [*sections, *(knob.key.partition(".")[2] for knob in knobs())])


def unknown_key(key: str, known: Mapping[str, Knob]) -> UserError:
    """Returns the error for an override `key=value` or a value whose key is not in `known`."""
    section, dot, name = key.partition(".")
    sections = [other.name for other in dataclasses.fields(Config)]
    if not dot:
        named = [f"--config.{other}" for other in known if key in other.split(".")]
        named += [f"--config.{SYNONYMS[key]}"] if key in SYNONYMS else []
        named += [ELSEWHERE[key]] if key in ELSEWHERE else []
        hint = f"; did you mean {' or '.join(named[:2])}?" if named else ""
        return UserError(f"--config.{key}: overrides are --config.SECTION.KEY=VALUE{hint}")
    # Names are compared without sections, because a common section makes any two keys similar.
    siblings = [other.partition(".")[2] for other in known if other.startswith(section + ".")]
    namesakes = [other for other in known if other.endswith("." + name)]
    namesakes += [SYNONYMS[name]] if name in SYNONYMS else []
    if name in ELSEWHERE and not namesakes:
        hint = f"; did you mean {ELSEWHERE[name]}?"
        return UserError(f"unknown config key {short_repr(key)}{hint}")
    if section not in sections and not namesakes:
        hint = did_you_mean(section, sections)
        return UserError(f"config has no section {short_repr(section)}{hint}")
    if namesakes:
        hint = f"; did you mean {namesakes[0]!r}?"
    elif siblings and (close := difflib.get_close_matches(name, siblings, n=1)):
        hint = f"; did you mean '{section}.{close[0]}'?"
    elif siblings:
        hint = f"; {section} has the knobs {', '.join(siblings)}"
    else:
        hint = did_you_mean(key, known)
    return UserError(f"unknown config key {short_repr(key)}{hint}")
