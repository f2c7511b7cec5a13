"""Perplexity on the corpora of the GPT-2 paper: per token, per original word, in bits per byte.

How a number came about is part of it: words and bytes are those of the original file whatever is
done to its text, and the protocol says where the text is cut.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from gpt2_jax.errors import UserError
from gpt2_jax.evals import detokenize
from gpt2_jax.evals.detokenize import Detokenizer
from gpt2_jax.evals.task import Row, Setting, Task, perplexity, ratio, read_text
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.generate import encode_prompt
from gpt2_jax.inference.scoring import Likelihood, windows


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A test set as its authors distribute it.

    Attributes:
      name: of the task.
      detokenizer: for corpora that were cut into tokens.
      words: text -> how many words it has; None where that says nothing.
      part: which part of the file is scored, for the protocol.
      by_line: lines have nothing to do with each other, and each is scored by itself.
      read: path -> text.
    """

    name: str
    detokenizer: Detokenizer | None = None
    words: Callable[[str], int] | None = None
    by_line: bool = False
    part: str = "the whole file"
    read: Callable[[Path], str] = read_text


def count_tokens(text: str) -> int:
    """Tokens of a corpus that was cut into them, the ends of lines included as is usual there."""
    return len(text.split()) + text.removesuffix("\n").count("\n") + 1


def count_words(text: str) -> int:
    """What stands between white space."""
    return len(text.split())


class LanguageModeling(Task):
    """All of a text, in windows, each token once after as many as the stride leaves it."""

    def __init__(self, corpus: Corpus, setting: Setting, path: Path | None = None) -> None:
        """Reads the corpus from its place in the data folder, or from another file."""
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
            raise UserError(f"--stride must be from 1 to the model's context of {T}, not {stride}")
        first = encode_prompt(tokenizer, "")[0]
        self.requests: list[Request] = []
        for text in texts:
            self.requests += windows(tokenizer.encode(text), first, T, stride)
        lengths = tokenizer.byte_lengths()
        self._scored = [
            int(lengths[[*request.continuations[0]]].sum()) for request in self.requests
        ]

        self.name = corpus.name
        said = [
            "each line by itself" if corpus.by_line else f"{corpus.part} as one text",
            f"windows of {T} tokens, " + (f"stride {stride}" if stride < T else "no overlap"),
            "our invertible detokenizer" if detokenizer else "the text as it is",
        ]
        if corpus.detokenizer:
            said.append("words: the original's tokens and ends of lines")
        self.protocol = ", ".join(said)

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Cost of a window in nats, its tokens, and the bytes they stand for."""
        (text,) = likelihoods
        return {
            "nats": -text.total,
            "tokens": len(text.logprobs),
            "bytes": self._scored[index],
        }

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """`word_perplexity` where there are words, `token_perplexity` and `bits_per_byte`.

        Of a part of the text, words and bytes are taken in proportion. The standard errors take
        windows for independent.
        """
        nats = [row["nats"] for row in rows]
        per_byte, error = ratio(nats, [row["bytes"] for row in rows])
        # The text that is scored may be shorter than the file it was made of.
        whole, error = per_byte * sum(self._scored), error * sum(self._scored)
        found = perplexity(*ratio(nats, [row["tokens"] for row in rows]), "token_perplexity")
        if self._words:
            words = perplexity(whole / self._words, error / self._words, "word_perplexity")
            found = words | found
        bits = self._bytes * math.log(2)
        return found | {"bits_per_byte": whole / bits, "bits_per_byte_stderr": error / bits}


def read_last_twentieth(path: Path) -> str:
    """The text of the last twentieth of a file's bytes: the usual test set of enwik8 and text8.

    Characters that the cuts fall into are left out.

    Raises:
      UserError: for a file that can't be read, or is not UTF-8 elsewhere.
    """
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            file.seek(size - size // 20)
            data = file.read()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    if not data:
        raise UserError(f"{path} has less than the 20 bytes of which the last is scored")
    begin = next((i for i, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        return data[begin:].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.start > 0:
            return data[begin : begin + error.start].decode("utf-8")
        raise UserError(f"can't read {path}: {error}") from error


CORPORA = (
    Corpus("wikitext2", detokenize.WIKITEXT, count_tokens),
    Corpus("wikitext103", detokenize.WIKITEXT, count_tokens),
    Corpus("ptb", detokenize.PTB, count_tokens),
    Corpus("lm1b", detokenize.LM1B, count_tokens, by_line=True),
    Corpus("enwik8", part="the last twentieth of the file", read=read_last_twentieth),
    Corpus("text8", part="the last twentieth of the file", read=read_last_twentieth),
)
