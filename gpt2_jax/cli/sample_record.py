"""Records what the results of `gpt2-jax sample --prompts FILE --out FILE` were made with.

Beside the file of results lies another, `OUT.settings.json`, which is written before the first
result. A later start goes on only if it would make the same results: it has the same flags, prompts
and model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.errors import UserError, short_repr
from gpt2_jax.files.atomic import write_file

_FLAG_NAMES = {"num_slots": "slots"}
_WAY_OUT = (
    "give what they were made with, name another --out, or remove it to make all of them anew"
)


def made_with(
    model: Any, prompts: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], *, ema: bool
) -> dict[str, Any]:
    """Returns all that results depend on, as JSON has it.

    Args:
      model: a `LanguageModel`.
      prompts: the lines of the file of prompts.
      settings: further arguments of `LanguageModel.generate_many`.
      ema: whether the parameters are the average.
    """
    from gpt2_jax.evals.run import model_digest
    from gpt2_jax.inference.bulk import SLOTS

    flags = {name: value for name, value in settings.items() if name != "options"}
    flags |= vars(settings["options"]) | {"ema": ema, "dtype": model.config.compute.dtype}
    flags["num_slots"] = flags["num_slots"] or SLOTS
    record = {
        "model": {"step": model.step, "fingerprint": model_digest(model.params, model.config)[:16]},
        "flags": {_FLAG_NAMES.get(name, name): value for name, value in sorted(flags.items())},
        "prompts": [_hash(line) for line in prompts],
    }
    return json.loads(json.dumps(record))


def write(out: Path, record: Mapping[str, Any]) -> None:
    """Writes the record of a file of results.

    Raises:
      OSError: if that fails.
    """
    write_file(_place(out), json.dumps(record, indent=1).encode() + b"\n")


def check(out: Path, record: Mapping[str, Any]) -> None:
    """Checks that results were made with the same as those that are to follow them.

    Raises:
      UserError: with all that differs, or if that is not known.
    """
    place = _place(out)
    try:
        before = json.loads(place.read_bytes())
        differences = [*_differences(before, record)]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"--out {out} has results, but {place} does not say what they were made with: "
            "name another --out, or remove it to make all of them anew"
        ) from error
    if differences:
        raise UserError(
            f"--out {out} has results that were made with {', '.join(differences)}: {_WAY_OUT}"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    flags = before["flags"]
    names = sorted(flags.keys() | now["flags"].keys())
    differing = [name for name in names if flags.get(name) != now["flags"].get(name)]
    for name in differing:
        yield f"--{name} {_shown(flags.get(name))}, not {_shown(now['flags'].get(name))}"
    # These two change what the parameters are.
    if before["model"] != now["model"] and not {"ema", "dtype"} & {*differing}:
        was, is_now = (
            f"step {each['step']} (fingerprint {each['fingerprint']})"
            for each in (before["model"], now["model"])
        )
        yield f"another model, {was}, not {is_now}"
    lines = before["prompts"]
    if lines != now["prompts"]:
        pairs = zip(lines, now["prompts"], strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if same is None:
            yield f"{len(lines)} --prompts, not {len(now['prompts'])}"
        else:
            yield f"other --prompts from line {same + 1} on"


def _shown(value: Any) -> str:
    return "left out" if value is None else short_repr(value)


def _hash(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line).encode()).hexdigest()[:16]


def _place(out: Path) -> Path:
    return out.with_name(f"{out.name}.settings.json")
