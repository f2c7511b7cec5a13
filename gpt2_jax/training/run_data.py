"""The tokenizer of files of examples: that of the model which a run starts from."""

from __future__ import annotations

from pathlib import Path

from gpt2_jax.config import Config
from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.files.paths import resolve_path
from gpt2_jax.formats.load import open_model, read_text_tokenizer
from gpt2_jax.prepare.example_files import has_example_files
from gpt2_jax.tokenizers.tokenizer import Tokenizer


def examples_tokenizer(config: Config, workdir: str | Path | None = None) -> Tokenizer | None:
    """Returns the tokenizer for the files of examples of a run, None if the config decides it.

    Args:
      config: of the run.
      workdir: its folder, whose checkpoints have the tokenizer too: the model that a run started
        from may be gone when it resumes.

    Raises:
      UserError: if the tokenizer of `train.init_from` cannot be read.
      StorageError: if no checkpoint of it is good.
    """
    if config.train.init_from is None or not has_example_files(config):
        return None
    try:
        return read_text_tokenizer(config.train.init_from)
    except (UserError, StorageError):
        if workdir is None or not (resolve_path(workdir) / "config.json").exists():
            raise
        with open_model(workdir) as reader:
            return reader.tokenizer
