"""Scores the Children's Book Test (Hill et al. 2015): which word is missing from a sentence."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.evals.detokenize import CBT
from gpt2_jax.evals.task import Row, Setting, Task, mean, read_text
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.generate import encode_prompt
from gpt2_jax.inference.scoring import Likelihood

_BLANK = "XXXXX"


class ChildrensBookTest(Task):
    """Chooses the word that makes itself and the rest of its sentence most probable.

    The data are the validation files of the original release, because GPT-2 was trained on a book
    of the test files (paper, section 3.2). Each of the 2,000 questions has 20 numbered sentences,
    then `21 sentence with XXXXX<tab>answer<tab><tab>choice|choice...` and an empty line.
    """

    def __init__(self, kind: str, setting: Setting) -> None:
        """Reads the questions whose missing words are common nouns (CN) or named entities (NE)."""
        self.name = f"cbt_{kind.lower()}"
        self.protocol = (
            "the GPT-2 paper's: the choice that is most probable together with the rest of its "
            "sentence, after the 20 sentences before it; validation files; "
            + ("our detokenizer" if setting.detokenize else "tokens as they are")
        )
        self.path = setting.file(self.name)
        self.requests: list[Request] = []
        self._answers: list[int] = []
        detokenize = CBT.detokenize if setting.detokenize else str
        encode = setting.tokenizer.encode
        for question in read_questions(self.path):
            choices = question.choices
            texts = [detokenize(question.sentence.replace(_BLANK, choice)) for choice in choices]
            # The common prefix of all choices, up to a word boundary, belongs to the context.
            columns = zip(*texts, strict=False)
            equal = itertools.takewhile(lambda letters: len(set(letters)) == 1, columns)
            prefix = "".join(letters[0] for letters in equal).rpartition(" ")[0]
            context = encode_prompt(
                setting.tokenizer, f"{detokenize(question.story)} {prefix}".strip()
            )
            # Tokens begin with the space, so context and choice can be encoded separately.
            endings = [encode(f" {text[len(prefix) :].strip()}") for text in texts]
            self.requests.append(Request(tuple(context), tuple(map(tuple, endings))))
            self._answers.append(choices.index(question.answer))

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Returns the log-probabilities of the choices, the chosen index and the correct one."""
        totals = np.array([likelihood.total for likelihood in likelihoods])
        return {
            "logprobs": totals.tolist(),
            "choice": int(totals.argmax()),
            "answer": self._answers[index],
        }

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Returns `acc`."""
        return mean("acc", [row["choice"] == row["answer"] for row in rows])


class Question(NamedTuple):
    """Holds the story before a sentence with a blank, the choices for it, and the answer."""

    story: str
    sentence: str
    choices: list[str]
    answer: str


def read_questions(path: Path) -> list[Question]:
    """Returns the questions of a file.

    Raises:
      UserError: if the file cannot be read or is malformed; the message names the line.
    """
    questions: list[Question] = []
    story: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        sentence, *rest = line.strip().partition(" ")[2].split("\t")
        if "\t" not in line:
            story = [*story, sentence] if line.strip() else []
            continue
        answer, choices = (rest[0], rest[-1].split("|")) if len(rest) > 1 else ("", [])
        distinct = len(set(choices)) == len(choices) > 1 and all(choices)
        if _BLANK not in sentence or answer not in choices or not distinct:
            raise UserError(
                f"{path}, line {number}: expected a sentence with {_BLANK}, its answer and two or "
                "more different choices that include the answer, separated by tabs"
            )
        questions.append(Question(" ".join(story), sentence, choices, answer))
    if not questions:
        raise UserError(f"{path} has no questions: expected lines with tabs")
    return questions


COMMON_NOUNS = functools.partial(ChildrensBookTest, "CN")
NAMED_ENTITIES = functools.partial(ChildrensBookTest, "NE")
