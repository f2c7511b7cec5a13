"""Turns the examples of a task into the folder of tokens that fine-tuning reads."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.config.fields import parse_fields
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.examples import prepare_examples
from gpt2_jax.prepare.tasks import explained
from gpt2_jax.tasks.base import Example, Task
from gpt2_jax.tokenizers.base import Tokenizer, utf8_bytes


def prepare_task(
    task: Task,
    data: Path,
    tokenizer: str | Tokenizer,
    out: str | Path,
    *,
    fraction: float = 1.0,
    **settings: Any,
) -> dict[str, Any]:
    """Writes the train and val splits of a task as examples; see `Task.prepare`.

    With a `fraction` below 1, as many of the training examples are taken, evenly from the whole
    split; those of the val split are all kept.

    A vocabulary is trained on the prompts and answers of the train split alone. Without a file
    val.*, the end of the train split is held out.

    A run that is killed is resumed by the next one, which formats the examples again and encodes
    what is not yet.

    Raises:
      UserError: for an example that no model can learn, or as `prepare_examples` does.
      StorageError: if the disk is full.
    """
    splits = ["train", "val"] if any(data.glob("val.*")) else ["train"]
    examples = {
        split: [
            _checked(task.format(record), f"{task.name}: example {number} of {split}")
            for number, record in enumerate(task.read(data, split), 1)
        ]
        for split in splits
    }
    examples["train"] = _share(examples["train"], fraction)
    with tempfile.TemporaryDirectory() as folder:
        with explained(f"the examples to {folder}", "set TMPDIR to another folder", ""):
            written = {split: _write(Path(folder), split, each) for split, each in examples.items()}
        return prepare_examples(
            {split: [path] for split, (path, _) in written.items()},
            parse_fields("prompt:prompt,answer:answer"),
            tokenizer,
            out,
            name=f"--task {task.name}",
            sums={str(path): content for path, content in written.values()},
            **settings,
        )


def _checked(example: Example, name: str) -> Example:
    """Returns the example; raises UserError, with its name, unless it can be learned from."""
    if not isinstance(example, Example):
        raise UserError(f"{name}: format must return an Example, not {type(example).__name__}")
    for part, text in zip(("prompt", "answer"), example, strict=True):
        if not isinstance(text, str):
            raise UserError(f"{name} has no text as its {part}, but {type(text).__name__}")
        try:
            utf8_bytes(text)
        except UserError as error:
            raise UserError(f"{name}, its {part}: {error}") from None
    if not example.answer:
        raise UserError(f"{name} has an empty answer, of which a model learns nothing: remove it")
    return example


def _share(examples: Sequence[Example], fraction: float) -> list[Example]:
    """Returns so many of the examples, at least one, at even distances.

    Raises:
      UserError: if the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"--fraction must be above 0 and at most 1, not {fraction:g}")
    count = min(max(round(len(examples) * fraction), 1), len(examples))
    return [examples[index * len(examples) // count] for index in range(count)]


def _write(folder: Path, split: str, examples: Sequence[Example]) -> tuple[Path, str]:
    """Writes examples as lines of JSON and returns the path, which is absolute, and the sha256."""
    path = Path(os.path.abspath(folder / f"{split}.jsonl"))
    lines = (json.dumps(example._asdict(), ensure_ascii=False) for example in examples)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()
