"""Scores the corpora of the GPT-2 paper: perplexity per token and per word, and bits per byte.

Words and bytes are counted in the original file, however its text is processed, and the protocol
says how the text is split into windows, so that numbers can be compared.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from gpt2_jax.errors import UserError
from gpt2_jax.evals import detokenize
from gpt2_jax.evals.detokenize import Detokenizer
from gpt2_jax.evals.task import Row, Setting, Task, perplexity, ratio, read_text
from gpt2_jax.files.lfs import refuse_lfs_pointer
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.generate import encode_prompt
from gpt2_jax.inference.scoring import Likelihood, windows


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Describes a test set as its authors distribute it.

    Attributes:
      name: the name of the task.
      detokenizer: converts the text to prose; None for corpora that are prose already.
      words: returns how many words a text has; None if word perplexity is not reported.
      part: names the part of the file that is scored, for the protocol.
      by_line: whether each line is scored by itself, because lines are unrelated.
      read: reads the text of a file.
    """

    name: str
    detokenizer: Detokenizer | None = None
    words: Callable[[str], int] | None = None
    by_line: bool = False
    part: str = "the whole file"
    read: Callable[[Path], str] = read_text


def count_tokens(text: str) -> int:
    """Returns how many tokens a tokenized corpus has, including line ends as is usual."""
    return len(text.split()) + text.removesuffix("\n").count("\n") + 1


def count_words(text: str) -> int:
    """Returns how many words, separated by white space, a text has."""
    return len(text.split())


class LanguageModeling(Task):
    """Scores every token of a text once, in windows whose overlap the stride decides."""

    def __init__(self, corpus: Corpus, setting: Setting, path: Path | None = None) -> None:
        """Reads the corpus from the data folder, or from another file."""
        self.path = path or setting.file(corpus.name)
        text = corpus.read(self.path)
        self._words = corpus.words(text) if corpus.words else None
        self._bytes = len(text.encode())
        detokenizer = corpus.detokenizer if setting.detokenize else None
        if detokenizer is not None:
            text = detokenizer.detokenize(text)
        texts = [text]
        if corpus.by_line:
            texts = [line + "\n" for line in text.removesuffix("\n").split("\n")]

        T, tokenizer = setting.context_length, setting.tokenizer
        stride = setting.stride or T
        if not 1 <= stride <= T:
            raise UserError(
                f"--stride must be between 1 and the model's context of {T}, not {stride}"
            )
        first = encode_prompt(tokenizer, "")[0]
        self.requests: list[Request] = []
        for text in texts:
            self.requests += windows(tokenizer.encode(text), first, T, stride)
        lengths = tokenizer.byte_lengths()
        self._scored = [
            int(lengths[[*request.continuations[0]]].sum()) for request in self.requests
        ]

        self.name = corpus.name
        protocol = [
            "each line by itself" if corpus.by_line else f"{corpus.part} as one text",
            f"windows of {T} tokens, " + (f"stride {stride}" if stride < T else "no overlap"),
            "our invertible detokenizer" if detokenizer else "the text as it is",
        ]
        if corpus.detokenizer:
            protocol.append("words: the original's tokens and line ends")
        self.protocol = ", ".join(protocol)

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Returns the nats of a window, its tokens, and the bytes they stand for."""
        (text,) = likelihoods
        return {
            "nats": -text.total,
            "tokens": len(text.logprobs),
            "bytes": self._scored[index],
        }

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Returns `word_perplexity` if words are counted, `token_perplexity` and `bits_per_byte`.

        If only a part of the text is scored, words and bytes are taken in proportion. The standard
        errors treat windows as independent.
        """
        nats = [row["nats"] for row in rows]
        per_byte, error = ratio(nats, [row["bytes"] for row in rows])
        # The scored text may be shorter than the file that it was made from.
        whole, error = per_byte * sum(self._scored), error * sum(self._scored)
        metrics = perplexity(*ratio(nats, [row["tokens"] for row in rows]), "token_perplexity")
        if self._words:
            words = perplexity(whole / self._words, error / self._words, "word_perplexity")
            metrics = words | metrics
        bits = self._bytes * math.log(2)
        return metrics | {"bits_per_byte": whole / bits, "bits_per_byte_stderr": error / bits}


def read_last_twentieth(path: Path) -> str:
    """Returns the last twentieth of a file's bytes as text: the usual test set of enwik8 and text8.

    Characters that are split by either end of this range are left out.

    Raises:
      UserError: if the file cannot be read, or is not UTF-8 for any other reason.
    """
    try:
        refuse_lfs_pointer(path)
        with open(path, "rb") as file:
            size = path.stat().st_size
            file.seek(size - size // 20)
            data = file.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise UserError(f"{path} has fewer than 20 bytes, so its last twentieth is empty")
    begin = next((i for i, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        return data[begin:].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.start > 0:
            return data[begin : begin + error.start].decode("utf-8")
        raise UserError(f"cannot read {path}: {error}") from error


# Each takes a Setting and makes the task.
WIKITEXT2, WIKITEXT103, PTB, LM1B, ENWIK8, TEXT8 = (
    functools.partial(LanguageModeling, corpus)
    for corpus in (
        Corpus("wikitext2", detokenize.WIKITEXT, count_tokens),
        Corpus("wikitext103", detokenize.WIKITEXT, count_tokens),
        Corpus("ptb", detokenize.PTB, count_tokens),
        Corpus("lm1b", detokenize.LM1B, count_tokens, by_line=True),
        Corpus("enwik8", part="the last twentieth of the file", read=read_last_twentieth),
        Corpus("text8", part="the last twentieth of the file", read=read_last_twentieth),
    )
)
