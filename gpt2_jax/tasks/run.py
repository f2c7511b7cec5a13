"""Lets a model answer the examples of a task, in bulk, and scores the answers."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpt2_jax.errors import UserError
from gpt2_jax.evals.run import Log, Show
from gpt2_jax.formats.model import Model
from gpt2_jax.inference.bulk import generate_many
from gpt2_jax.inference.generate import MOST_SLOTS, decode_params
from gpt2_jax.model.build import build_decoder
from gpt2_jax.tasks.base import Metric, Record, Settings, Task, average
from gpt2_jax.tasks.bootstrap import interval
from gpt2_jax.tokenizers.tokenizer import Tokenizer

# The most tokens of an answer, from the lengths of the answers to train on.
_PERCENTILE, _SLACK = 99, 1.2


class Answered(NamedTuple):
    """Holds the examples of a task with what a model answers.

    Attributes:
      records: the examples.
      texts: what the model wrote for each, cut as the task says.
      ended: whether the model ended each by itself.
      cut_prompts: how many prompts lost their end because they did not fit the context.
      max_new_tokens: the most tokens of an answer.
    """

    records: Sequence[Record]
    texts: Sequence[str]
    ended: Sequence[bool]
    cut_prompts: int
    max_new_tokens: int


def evaluate_task(
    task: Task, model: Model, data: Path, settings: Settings, show: Show
) -> dict[str, float]:
    """Returns the task's metrics with `_stderr`, `_low` and `_high`; see `Task.evaluate`.

    Also the counts of `summed`.
    """
    answered = answer(task, model, data, settings, show)
    metrics = task.score(answered.records, answered.texts)
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise UserError(
                f"{task.name}: score must return a list of Metric, not of {type(metric).__name__}"
            )
        if len(metric.values) != len(answered.records):
            raise UserError(
                f"{task.name}: {metric.name!r} has {len(metric.values)} values for "
                f"{len(answered.records)} answers"
            )
    return summed(answered, metrics)


def summed(answered: Answered, metrics: Sequence[Metric]) -> dict[str, float]:
    """Returns metrics with intervals, and what is counted of the answers.

    That is `ended`, the share of the answers that the model ended by itself, `cut_prompts` and
    `max_new_tokens` of `Answered`, and `count`.
    """
    return with_intervals([*metrics, average("ended", answered.ended)]) | {
        "cut_prompts": answered.cut_prompts,
        "max_new_tokens": answered.max_new_tokens,
        "count": len(answered.records),
    }


def answer(task: Task, model: Model, data: Path, settings: Settings, show: Show) -> Answered:
    """Returns what the model answers to the examples of a split; see `Task.evaluate`."""
    everything = list(task.read(data, settings.split))
    records = everything[: settings.limit]
    if not records:
        raise UserError(f"{task.name}: {data} has no examples in its {settings.split} split")
    sizes = model.config.model
    new = max_new_tokens(task, data, model.tokenizer)
    # A prompt fits the context, as in training; an answer may go on behind it if positions do.
    room = min(sizes.context_length - 1, sizes.longest - new)
    if room < 1:
        raise UserError(
            f"{task.name}: answers of up to {new} tokens leave no room for a prompt in the model's "
            f"context of {sizes.context_length} tokens"
        )
    prompts = [task.prompt_tokens(record, model.tokenizer) for record in everything]
    header = _header(task, everything, prompts, room, new, settings)
    cut = sum(len(prompt) > room for prompt in prompts[: settings.limit])
    prompts = [prompt[:room] for prompt in prompts[: settings.limit]]
    rows = _answers(task, model, prompts, new, settings, header, show)
    texts = [task.answer(row["answer"]) for row in rows]
    return Answered(records, texts, [row["ended"] for row in rows], cut, new)


def with_intervals(metrics: Sequence[Metric]) -> dict[str, float]:
    """Returns each metric's value, and its `_stderr`, `_low` and `_high` by the bootstrap."""
    found: dict[str, float] = {}
    for metric in metrics:
        if metric.name in found:
            raise UserError(f"two metrics are called {metric.name!r}: choose other names")
        value, *others = interval(metric)
        found[metric.name] = value
        for name, other in zip(("stderr", "low", "high"), others, strict=True):
            found[f"{metric.name}_{name}"] = other
    return found


def max_new_tokens(task: Task, data: Path, tokenizer: Tokenizer) -> int:
    """Returns the most tokens of an answer; see `Decoding.max_new_tokens`.

    It is computed from the train split each time and not by `prepare`: any model may be evaluated
    on the data, prepared or not, and its tokenizer decides the lengths. Of 20,000 answers of a
    sentence it takes about a second, less than the model needs to write a few.

    Raises:
      UserError: if it depends on the train split, which is missing.
    """
    if task.decoding.max_new_tokens is not None:
        return task.decoding.max_new_tokens
    answers = [task.format(record).answer for record in task.read(data, "train")]
    if not answers:
        raise UserError(f"{task.name}: {data} has no examples in its train split")
    lengths = [len(tokenizer.encode_array(answer)) + 1 for answer in answers]  # with its end
    return math.ceil(_SLACK * float(np.percentile(lengths, _PERCENTILE)))


def _answers(
    task: Task,
    model: Model,
    prompts: Sequence[Sequence[int]],
    new: int,
    settings: Settings,
    header: dict[str, str],
    show: Show,
) -> list[dict[str, Any]]:
    """Returns a row for each prompt: the answer, its tokens, and whether it ended by itself."""
    with contextlib.ExitStack() as stack:
        log, rows = None, []
        if settings.folder is not None:
            log = stack.enter_context(contextlib.closing(Log(settings.folder, task.name, header)))
            rows = [log.rows[index] for index in sorted(log.rows)][: len(prompts)]
        show(len(rows), len(prompts))
        if len(rows) == len(prompts):
            return rows
        decoder = build_decoder(model.config.model, model.config.compute)
        samples = generate_many(
            decoder,
            decode_params(decoder, model.params),
            model.tokenizer,
            prompts,
            max_new_tokens=new,
            options=task.decoding.options,
            stop=task.decoding.stop,
            seed=task.decoding.seed,
            num_slots=MOST_SLOTS,  # the same for any list, because bits depend on it
            start=len(rows),
        )
        for (sample,) in samples:
            row = {
                "answer": sample.text,
                "tokens": len(sample.tokens),
                "ended": sample.finish_reason == "stop",
            }
            if log is not None:
                log.write(len(rows), row)
            rows.append(row)
            show(len(rows), len(prompts))
    return rows


def _header(
    task: Task,
    records: Sequence[Record],
    prompts: Sequence[Sequence[int]],
    room: int,
    new: int,
    settings: Settings,
) -> dict[str, str]:
    """Returns what the log of answers must say for them to be those that are asked for.

    A limit is no part of it, so that a longer list goes on behind the answers of a shorter one.
    """
    data = repr([dict(record) for record in records])
    asked = repr((task.protocol, task.decoding, settings.split, room, new, prompts))
    return {
        "task": task.name,
        "model": settings.digest,
        "data": hashlib.sha256(data.encode()).hexdigest(),
        "settings": hashlib.sha256(asked.encode()).hexdigest(),
    }
