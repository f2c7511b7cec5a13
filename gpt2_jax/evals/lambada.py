"""Scores LAMBADA (Paperno et al. 2016): the last word of a passage, given all that precedes it.

Two protocols are published under this name, and their accuracies differ by more than ten points.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpt2_jax.errors import UserError
from gpt2_jax.evals.task import Row, Setting, Task, mean, perplexity, ratio, read_jsonl
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.scoring import Likelihood, encode_pair
from gpt2_jax.tokenizers.tokenizer import Tokenizer


class Lambada(Task):
    """Scores all tokens of the last word, as lm-eval's `lambada_openai` does.

    The data are `lambada_test.jsonl`, OpenAI's untokenized version of the test set: 5,153 lines,
    each an object {"text"}.
    """

    name = "lambada_openai"
    protocol = (
        "lm-eval's: the text after the last space, all its tokens; acc: each of them is the "
        "most probable; perplexity per word"
    )

    def __init__(self, setting: Setting) -> None:
        self.path = setting.file(self.name)
        self.requests = [_last_word(setting.tokenizer, text) for text in _texts(self.path)]

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Returns the log-probability of the word, and whether greedy decoding produces it."""
        (word,) = likelihoods
        return {"logprob": word.total, "greedy": bool(word.greedy.all())}

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Returns `acc` and `perplexity`."""
        nats = [-row["logprob"] for row in rows]
        return mean("acc", [row["greedy"] for row in rows]) | perplexity(
            *ratio(nats, [1] * len(rows))
        )


class LambadaGPT2(Task):
    """Scores the last token, and the last word without stop words: the GPT-2 paper's numbers.

    OpenAI scored whether the last token, not the last word, is the most probable one, on texts that
    begin with a newline and have straight quotation marks (openai/gpt-2, thread 131). The paper
    reports its best accuracy with "a stop-word filter" without describing it: here the first token
    of the word must be the most probable among those that are not a space and a stop word.
    """

    name = "lambada_gpt2"
    protocol = (
        "the GPT-2 paper's, as far as it is known: texts after a newline, with straight quotation "
        "marks; acc and perplexity: of the last token alone; acc_filtered: of the whole last word, "
        "where stop words are excluded (the list is ours)"
    )

    def __init__(self, setting: Setting) -> None:
        self.path = setting.file(self.name)
        texts = ["\n" + _straight(text).strip() for text in _texts(self.path)]
        self.requests = [_last_word(setting.tokenizer, text) for text in texts]
        self.excluded = _stop_tokens(setting.tokenizer)

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Returns the log-probability of the last token, and what is most probable."""
        (word,) = likelihoods
        return {
            "logprob": float(word.logprobs[-1]),
            "greedy": bool(word.greedy[-1]),
            # Only the first token of the word can be a stop word.
            "filtered": bool(word.allowed[0] and word.greedy[1:].all()),
        }

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Returns `acc`, `acc_filtered` and `perplexity`."""
        nats = [-row["logprob"] for row in rows]
        return (
            mean("acc", [row["greedy"] for row in rows])
            | mean("acc_filtered", [row["filtered"] for row in rows])
            | perplexity(*ratio(nats, [1] * len(rows)))
        )


def _texts(path: Path) -> list[str]:
    texts = []
    for number, row in enumerate(read_jsonl(path, {"text": str}), start=1):
        if not row["text"].strip():
            raise UserError(f"{path}, line {number}: the text has no word")
        texts.append(row["text"])
    return texts


def _last_word(tokenizer: Tokenizer, text: str) -> Request:
    """Returns the passage up to its last space as the context, and the rest as continuation."""
    context, space, word = text.rpartition(" ")
    context, continuation = encode_pair(tokenizer, context, space + word)
    return Request(context, (continuation,))


def _straight(text: str) -> str:
    for mark in ("“", "”", "``", "''"):
        text = text.replace(mark, '"')
    return text


def _stop_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Returns the ids of the tokens that are a space and a stop word, in any case."""
    stop_tokens = []
    for token in range(tokenizer.vocab_size):
        text = tokenizer.decode([token])
        if text.startswith(" ") and text[1:].lower() in STOP_WORDS:
            stop_tokens.append(token)
    return tuple(stop_tokens)


_FUNCTION_WORDS = """
    a an the this that these those
    i me my mine myself you your yours yourself yourselves he him his himself she her hers herself
    it its itself we us our ours ourselves they them their theirs themselves one
    who whom whose which what when where why how
    and but or nor so yet if then than because while until though although as
    of at by for with about against between into through during before after above below to from
    up down in out on off over under toward towards upon within without
    am is are was were be been being have has had having do does did doing done
    will would shall should can could may might must
    again further once here there now just only very too also not no yes
    all any both each few more most other some such own same every either neither
    s t d m ll re ve don isn aren wasn weren hasn haven hadn doesn didn
    won wouldn shan shouldn couldn
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English function words, which are unlikely to be the word that a passage leads up to."""
