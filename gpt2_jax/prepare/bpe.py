"""Trains a byte-level byte-pair encoding on a corpus, by the `tokenizers` package."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.files.extras import import_extra
from gpt2_jax.tokenizers import vocabulary as vocabularies
from gpt2_jax.tokenizers.bpe import BPETokenizer
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT

PREFIX = "bpe:"
"""What the name of a tokenizer to train begins with; the size of its vocabulary follows."""
# The 256 bytes and the end of text, with at least one merge.
_SMALLEST = 258
_LARGEST = 65_536


def is_trained_name(name: str) -> bool:
    """Returns whether a tokenizer's name asks for one that is trained on the corpus."""
    return name.startswith(PREFIX)


def vocabulary_size(name: str) -> int:
    """Returns the size that a name such as "bpe:4096" asks for.

    Raises:
      UserError: if it is no size, or out of range.
    """
    size = name.removeprefix(PREFIX)
    if not re.fullmatch(r"\d{1,9}", size) or not _SMALLEST <= int(size) <= _LARGEST:
        raise UserError(
            f"--tokenizer {name}: the size of the vocabulary must be from {_SMALLEST} to "
            f"{_LARGEST}, such as {PREFIX}4096"
        )
    return int(size)


def train_named(name: str, texts: Iterable[str]) -> BPETokenizer:
    """Returns the tokenizer that a name such as "bpe:4096" asks for, trained on texts.

    Raises:
      UserError: as `vocabulary_size` and `train_bpe` do.
    """
    return train_bpe(texts, vocabulary_size(name))


def train_bpe(texts: Iterable[str], size: int) -> BPETokenizer:
    """Trains on texts, in words cut by GPT-2's pattern, and returns the tokenizer.

    Id 0 is the end of text, ids 1 to 256 are the bytes, and the tokens that merges make follow in
    the order of the merges. The same texts always give the same tokenizer.

    Args:
      texts: the corpus; it is read once, and its different words are kept in memory.
      size: ids of the vocabulary. A small corpus may have too few pairs that occur twice: then
        there are fewer.

    Raises:
      UserError: if the package is missing, or there is too little text.
    """
    tokenizers: Any = import_extra("tokenizers", extra="tasks", needed_by=f"--tokenizer {PREFIX}N")
    level = {"add_prefix_space": False, "use_regex": True}
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(**level)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    content = json.loads(trained.to_str())["model"]
    merges = [(left, right) for left, right in content["merges"]]
    if not merges:
        raise UserError(f"there is too little text to train --tokenizer {PREFIX}N on: use byte")
    end = content["vocab"][END_OF_TEXT]
    vocabulary = vocabularies.from_merges(content["vocab"], merges, {END_OF_TEXT: end})
    return BPETokenizer(vocabulary, eot=end)
