"""Puts one evaluation together: a model, what it is scored on, and where the results go."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.config import ModelConfig, arguments
from gpt2_jax.errors import UserError
from gpt2_jax.evals import sources
from gpt2_jax.evals.language_modeling import Corpus, LanguageModeling, count_words
from gpt2_jax.evals.registry import make_task
from gpt2_jax.evals.results import write_results
from gpt2_jax.evals.run import Show, evaluate_and_keep, model_digest
from gpt2_jax.evals.task import Setting, Task
from gpt2_jax.evals.texts import EXAMPLE, checked_texts
from gpt2_jax.evals.validation import ValidationSplit
from gpt2_jax.files.paths import local_path
from gpt2_jax.formats.load import open_model
from gpt2_jax.formats.model import Model, ModelReader
from gpt2_jax.inference.scoring import Scorer
from gpt2_jax.model.lengths import at_length, params_at_length
from gpt2_jax.parallel.compilation_cache import keep_compiled_programs
from gpt2_jax.tasks import base, registry

Progress = Callable[[str], contextlib.AbstractContextManager[Show]]
"""(name of a task) -> a context manager for a function that shows its progress."""


def evaluate(
    model: str | Path,
    tasks: Sequence[str] = (),
    data: str | Path = "",
    *,
    texts: Mapping[str, str | Path] | None = None,
    limit: int | None = None,
    split: str = "test",
    stride: int | None = None,
    detokenize: bool = True,
    validation: bool = False,
    context_length: int | None = None,
    ema: bool = False,
    dtype: str | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores a model on tasks, texts and its run's validation split.

    Args:
      model: see `gpt2_jax.load`.
      tasks: names of tasks, all of which must have data, or of groups such as `gpt2_paper`, or
        files with a task that the model answers by writing, see docs/tasks.md.
      data: the folder with their files.
      texts: name -> file of further texts whose perplexity is measured.
      limit: number of examples of each task to score; by default all.
      split: of the tasks that the model answers by writing: "train", "val" or "test".
      stride: tokens scored per window of a long text; by default windows do not overlap.
      detokenize: whether corpora that are split into tokens are joined to plain text first.
      validation: whether to score the validation split of the data that the model was trained on,
        as training does: `validation`, or `validation_at_N` in windows of another length.
      context_length: tokens that the model sees at once; by default as in training. More are
        possible unless `model.position=learned`.
      ema, dtype: see `gpt2_jax.load`.
      out: folder for the result of each example; an interrupted evaluation resumes from it.
      progress: (name of a task) -> a context manager for a function that is called with (number of
        examples scored, number of all examples).

    Returns:
      {"model", "step", "ema", "dtype", "context_length", "limit", "tasks": {name: {metric: value,
      ..., "count"}}, "protocols": {name: the published protocol that the numbers follow}}.

    Raises:
      UserError: for an argument of a wrong type or value, an unknown task, or a model or data that
        cannot be read.
      StorageError: if `out` cannot be written.
    """
    arguments.path("model", model)
    if progress is not None and not callable(progress):
        raise UserError(f"progress must be a function, not {type(progress).__name__}")
    asked = _checked(
        tasks=tasks,
        data=data,
        texts=texts,
        limit=limit,
        split=split,
        stride=stride,
        detokenize=detokenize,
        validation=validation,
        context_length=context_length,
        out=out,
    )
    keep_compiled_programs()
    with open_model(model, ema=arguments.boolean("ema", ema), dtype=dtype) as reader:
        trained = reader.config.model
        resized = at_length(trained, asked.context_length or trained.context_length)
        ready, of_run = _opened(asked, reader, resized.context_length)
        read = reader.read()
    digest = "" if asked.folder is None else model_digest(read.params, read.config)
    scorings = _scorings(asked, read, resized, ready, of_run, digest)
    results: dict[str, dict[str, float]] = {}
    for name, score in scorings.items():
        with progress(name) if progress else contextlib.nullcontext(_ignore) as show:
            results[name] = score(show)
        if asked.folder is not None:
            write_results(asked.folder / "results.json", str(model), digest, results)
    return {
        "model": str(model),
        "step": read.step,
        "ema": ema,
        "dtype": read.config.compute.dtype,
        "context_length": resized.context_length,
        "limit": asked.limit,
        "tasks": results,
        "protocols": {task.name: task.protocol for task in [*asked.writing, *ready, *of_run]},
    }


@dataclasses.dataclass(frozen=True)
class _Asked:
    """Holds the arguments of `evaluate`, checked.

    Of the tasks, `tasks` score texts, and `writing` are those that the model answers by writing.
    """

    writing: Sequence[base.Task]
    tasks: Sequence[str]
    data: Path
    texts: Mapping[str, Path]
    limit: int | None
    split: str
    stride: int | None
    detokenize: bool
    validation: bool
    context_length: int | None
    folder: Path | None


def _checked(
    *,
    tasks: Any,
    data: Any,
    texts: Any,
    limit: Any,
    split: Any,
    stride: Any,
    detokenize: Any,
    validation: Any,
    context_length: Any,
    out: Any,
) -> _Asked:
    """Returns what is asked for, before anything is read but the files of tasks."""
    limit = arguments.optional_integer("limit", limit, low=1)
    stride = arguments.optional_integer("stride", stride, low=1)
    detokenize = arguments.boolean("detokenize", detokenize)
    validation = arguments.boolean("validation", validation)
    context_length = arguments.optional_integer("context_length", context_length, low=1)
    split = arguments.text("split", split)
    tasks = arguments.texts("tasks", tasks, example="['hellaswag']")
    if not isinstance(data, str) or data:
        arguments.path("data", data)
    texts = checked_texts({} if texts is None else texts)
    if not tasks and not texts and not validation:
        raise UserError("there is nothing to score: name tasks, or texts such as " + EXAMPLE)
    folder = local_path(data, "data")
    written, names = registry.split_names(tasks)
    return _Asked(
        writing=[registry.make_task(name) for name in written],
        tasks=sources.select(",".join(names), folder, registry.NAMES).run if names else [],
        data=folder,
        texts=texts,
        limit=limit,
        split=split,
        stride=stride,
        detokenize=detokenize,
        validation=validation,
        context_length=context_length,
        folder=None if out is None else local_path(arguments.path("out", out), "out"),
    )


def _opened(
    asked: _Asked, reader: ModelReader, context_length: int
) -> tuple[list[Task], list[ValidationSplit]]:
    """Opens the data of tasks and texts, and of the validation split if it is asked for.

    All of it is checked before the model's parameters are read.
    """
    setting = Setting(asked.data, reader.tokenizer, context_length, asked.stride, asked.detokenize)
    for task in asked.writing:
        task.read(asked.data, asked.split)
    ready = [make_task(name, setting) for name in asked.tasks]
    for name, path in asked.texts.items():
        ready.append(LanguageModeling(Corpus(name, words=count_words), setting, path))
    of_run = [ValidationSplit(reader, context_length, asked.limit)] if asked.validation else []
    if any(each.name in asked.texts for each in of_run):
        raise UserError(f"texts: {of_run[0].name} is the validation split: choose another name")
    names = [each.name for each in (*asked.writing, *ready, *of_run)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two tasks or texts are called {name}: choose other names")
    return ready, of_run


def _scorings(
    asked: _Asked,
    read: Model,
    resized: ModelConfig,
    ready: Sequence[Task],
    of_run: Sequence[ValidationSplit],
    digest: str,
) -> dict[str, Callable[[Show], dict[str, float]]]:
    """Returns what computes the numbers of each task, text and split, in the order they are shown.

    Args:
      asked: see `_Asked`.
      read: the model.
      resized: its config at the context length that is asked for.
      ready, of_run: see `_opened`.
      digest: identifies the model in `asked.folder`.
    """
    scorings: dict[str, Callable[[Show], dict[str, float]]] = {}
    params: Any = None
    if ready or asked.writing:
        params = params_at_length(read.config.model, read.params, resized.context_length)
    settings = base.Settings(asked.split, asked.limit, asked.folder, digest)
    config = dataclasses.replace(read.config, model=resized)
    sized = Model(config, params, read.tokenizer, 0, read.path)
    for task in asked.writing:
        scorings[task.name] = functools.partial(task.evaluate, sized, asked.data, settings)
    if ready:
        scorer = Scorer(params, resized, config.compute)
        for task in ready:
            scorings[task.name] = functools.partial(
                evaluate_and_keep, task, scorer, asked.limit, asked.folder, digest
            )
    for each in of_run:
        scorings[each.name] = functools.partial(each.evaluate, read.params)
    return scorings


def _ignore(done: int, total: int) -> None:
    """Shows no progress."""
