"""The Children's Book Test (Hill et al. 2015): the word that is missing from a sentence."""

from __future__ import annotations

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
    """Which of ten words makes it and the rest of the sentence most probable.

    Data: the validation files of the original release, since a book of the test files is part of
    what GPT-2 was trained on (paper, section 3.2): 20 numbered sentences, then `21 sentence with
    XXXXX<tab>answer<tab><tab>choice|choice...` and an empty line; 2,000 questions.
    """

    def __init__(self, kind: str, setting: Setting) -> None:
        """Takes the kind of the missing words: CN (common nouns) or NE (named entities)."""
        self.name = f"cbt_{kind.lower()}"
        self.protocol = (
            "the GPT-2 paper's: the choice that is most probable together with the rest of its "
            "sentence, after the 20 sentences before it; validation files; "
            + ("our detokenizer" if setting.detokenize else "tokens as they are")
        )
        self.path = setting.file(self.name)
        self.requests: list[Request] = []
        self._answers: list[int] = []
        written = CBT.detokenize if setting.detokenize else str
        encode = setting.tokenizer.encode
        for question in read_questions(self.path):
            choices = question.choices
            texts = [written(question.sentence.replace(_BLANK, choice)) for choice in choices]
            # What all choices have in common belongs to the context; a word is never cut.
            columns = zip(*texts, strict=False)
            alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, columns)
            shared = "".join(letters[0] for letters in alike).rpartition(" ")[0]
            context = encode_prompt(
                setting.tokenizer, f"{written(question.story)} {shared}".strip()
            )
            # Tokens begin with the space, so that context and choice are encoded separately.
            endings = [encode(f" {text[len(shared) :].strip()}") for text in texts]
            self.requests.append(Request(tuple(context), tuple(map(tuple, endings))))
            self._answers.append(choices.index(question.answer))

    def row(self, index: int, likelihoods: Sequence[Likelihood]) -> Row:
        """Log-probabilities of the choices, the one chosen, and the right one."""
        totals = np.array([likelihood.total for likelihood in likelihoods])
        return {
            "logprobs": totals.tolist(),
            "choice": int(totals.argmax()),
            "answer": self._answers[index],
        }

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """`acc`."""
        return mean("acc", [row["choice"] == row["answer"] for row in rows])


class Question(NamedTuple):
    """The sentences before, a sentence with a blank, what may stand in it, and what does."""

    story: str
    sentence: str
    choices: list[str]
    answer: str


def read_questions(path: Path) -> list[Question]:
    """The questions of a file.

    Raises:
      UserError: for a file that can't be read or is not of this form, with the line.
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
                "more different choices with the answer among them, separated by tabs"
            )
        questions.append(Question(" ".join(story), sentence, choices, answer))
    if not questions:
        raise UserError(f"{path} has no questions: lines with tabs")
    return questions
