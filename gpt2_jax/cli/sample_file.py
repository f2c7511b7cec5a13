"""Generates text for the prompts of a file, for `gpt2-jax sample --prompts FILE --out FILE`."""

from __future__ import annotations

import contextlib
import json
import os
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2_jax.cli import sample_record
from gpt2_jax.errors import UserError
from gpt2_jax.files.lfs import refuse_lfs_pointer
from gpt2_jax.files.lock import lock_folder
from gpt2_jax.files.paths import local_path

_KEYS = ("prompt", "prompt_tokens")


def run(
    model: Any,
    prompts: list[dict[str, Any]],
    out: str,
    settings: Mapping[str, Any],
    *,
    ema: bool = False,
) -> None:
    """Appends a line with the samples of each prompt that the file of results does not have yet.

    Args:
      model: a `LanguageModel`.
      prompts: of `read`.
      out: the file of results.
      settings: further arguments of `LanguageModel.generate_many`.
      ema: whether the model's parameters are the average.

    Raises:
      UserError: if the results are not those of these prompts, were made with another model or
        other settings, or a file cannot be used.
    """
    path = local_path(out, "--out")
    content = _content(path)
    end = content.rfind(b"\n") + 1  # what comes behind is what an interrupted start left of a line
    done = _count_results(path, content[:end], prompts)
    record = sample_record.made_with(model, prompts, settings, ema=ema)
    if done:
        sample_record.check(path, record)
    texts = [_prompt(line) for line in prompts]
    samples = model.generate_many(texts, start=done, **settings)
    try:
        if not done:
            sample_record.write(path, record)
        with path.open("ab") as file:
            file.truncate(end)
            for line, found in zip(prompts[done:], samples, strict=True):
                result = {**line, "samples": [vars(sample) for sample in found]}
                file.write(json.dumps(result).encode() + b"\n")
                file.flush()
    except OSError as error:
        raise UserError(f"cannot write --out {out}: {error.strerror}") from error
    print(f"{out} has the results of {len(prompts)} prompts, {done} of them from an earlier start")


@contextlib.contextmanager
def locked(out: str) -> Iterator[None]:
    """Keeps other processes from writing to the file of results during the block.

    Raises:
      UserError: if one does, or nothing can be written beside the file.
    """
    path = Path(os.path.realpath(local_path(out, "--out")))
    folder = path.with_name(f".{path.name}.lock")
    lock = lock_folder(folder, f"--out {out}", activity="being written")
    try:
        lock.acquire()
    except OSError as error:
        raise UserError(f"cannot write --out {out}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # a process that waited may have locked it since
            folder.rmdir()


def read(name: str) -> list[dict[str, Any]]:
    """Returns the lines of a file of prompts.

    Raises:
      UserError: with the number of the line, if one is no object with a prompt.
    """
    path = local_path(name, "--prompts")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read --prompts {name}: {error.strerror}") from error
    refuse_lfs_pointer(path, content)
    content = content.removeprefix(BOM_UTF8)
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    if not lines:
        raise UserError(f'--prompts {name} is empty: write a line such as {{"prompt": "a"}}')
    return [_parsed(line, f"{name} line {number}") for number, line in enumerate(lines, 1)]


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f'{where} must be a JSON object such as {{"prompt": "a"}}')
    if sum(key in values for key in _KEYS) != 1:
        raise UserError(f"{where} must have a prompt, or else prompt_tokens")
    if not isinstance(values.get("prompt", ""), str):
        raise UserError(f"{where}: prompt must be a string")
    if not isinstance(values.get("prompt_tokens", []), list):
        raise UserError(f"{where}: prompt_tokens must be a list of token ids")
    if "samples" in values:
        raise UserError(f"{where} has samples, which is where results go: rename it")
    return values


def _prompt(line: Mapping[str, Any]) -> str | list[int]:
    return line["prompt"] if "prompt" in line else line["prompt_tokens"]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UserError(f"cannot read --out {path}: {error.strerror}") from error


def _count_results(path: Path, content: bytes, prompts: list[dict[str, Any]]) -> int:
    """Returns how many results the whole lines of a file are.

    Raises:
      UserError: if they are not those of the first prompts.
    """
    lines = content.split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            values.pop("samples", None)
        if number > len(prompts) or values != prompts[number - 1]:
            raise UserError(
                f"--out {path} line {number} is not the result of that prompt of --prompts: name "
                "another file, or remove it"
            )
    return len(lines)
