"""Writes small data files for the tasks, and makes the settings and scores that tests give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.evals.task import Setting
from gpt2_jax.inference.scoring import Likelihood
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer

HELLASWAG_LINE = {
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man [step] is  sitting on a roof.",
    "ctx_b": "he",
    "endings": ["falls. [title] Then", "is ripping level tiles off.", "sings.", "is [x] gone."],
    "label": 1,
}
CBT_STORY = """\
1 There was a king .
2 `` Do n't go , '' he said .
21 `` The XXXXX is mine , '' said the fox .\tcrown\t\tcrown|dog|ox|crow
"""


def write_lines(folder: Path, name: str, *lines: Any) -> Path:
    """Writes a JSON Lines file into the folder and returns the folder."""
    content = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / name).write_text(content, encoding="utf-8")
    return folder


def likelihood(*logprobs: float, greedy: bool = False) -> Likelihood:
    """Returns the score of a continuation whose tokens have these log-probabilities."""
    flags = np.array([greedy] * len(logprobs))
    return Likelihood(np.array(logprobs, np.float32), flags, flags)


def setting(folder: Path, tokenizer: Tokenizer | None = None, **changes: Any) -> Setting:
    """Returns a setting for data in the folder: bytes and a context of 1024, unless changed."""
    return Setting(folder, tokenizer or ByteTokenizer(), 1024)._replace(**changes)
