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
from gpt2_jax.tasks.base import Example, Task
from gpt2_jax.tokenizers.tokenizer import Tokenizer


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
    split; those of val.jsonl are all kept.

    A vocabulary is trained on the prompts and answers of the train split alone. Without val.jsonl,
    the end of the train split is held out.

    A run that is killed is resumed by the next one, which formats the examples again and encodes
    what is not yet.
    """
    splits = ["train", "val"] if (data / "val.jsonl").is_file() else ["train"]
    examples = {
        split: [task.format(record) for record in task.read(data, split)] for split in splits
    }
    examples["train"] = _share(examples["train"], fraction)
    with tempfile.TemporaryDirectory() as folder:
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
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path, hashlib.sha256(content).hexdigest()
