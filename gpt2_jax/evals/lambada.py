"""LAMBADA (Paperno et al. 2016): the last word of a passage, which takes all of it to know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpt2_jax.data.tokenizer import Tokenizer
from gpt2_jax.evals.batching import Request
from gpt2_jax.evals.scoring import Likelihood, encode_pair
from gpt2_jax.evals.task import Row, mean, perplexity, read_jsonl

FILE = "lambada_test.jsonl"


class Lambada:
    """The last word, all its tokens, as lm-eval's `lambada_openai` scores it.

    Data: `lambada_test.jsonl`, an object {"text"} a line; OpenAI's version of the test set, which
    never was cut into tokens, has 5,153.
    """

    name = "lambada_openai"
    protocol = (
        "lm-eval's: the last word after the last space, all its tokens; acc: each of them is the "
        "most probable; perplexity per word"
    )

    def __init__(self, folder: Path) -> None:
        """Reads the passages; UserError for a file that is missing or malformed."""
        self._texts = [row["text"] for row in read_jsonl(folder / FILE, {"text": str})]

    def requests(self, tokenizer: Tokenizer, context_length: int) -> list[Request]:
        """The passage up to its last space, and the rest."""
        requests = []
        for text in self._texts:
            context, space, word = text.rpartition(" ")
            context, continuation = encode_pair(tokenizer, context, space + word)
            requests.append(Request(context, (continuation,)))
        return requests

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Log-probability of the word, and whether greedy decoding finds it."""
        (word,) = likelihoods
        return {"logprob": word.total, "greedy": bool(word.greedy.all())}

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """`acc` and `perplexity`."""
        return mean("acc", [row["greedy"] for row in rows]) | perplexity(
            [-row["logprob"] for row in rows]
        )
