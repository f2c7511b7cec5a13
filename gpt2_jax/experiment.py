"""Training and evaluation as functions, which the command line, sweeps and notebooks call.

`train(config, workdir)` combines data, evaluators and the trainer; `evaluate(model, tasks)`
combines a model and its tasks. In a run of several processes each calls the same function, after
`gpt2_jax.parallel.distributed.initialize`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config, MeshConfig, arguments
from gpt2_jax.data.token_sets import TokenSets, resolve_vocab_size
from gpt2_jax.errors import UserError, print_stderr
from gpt2_jax.evals import compression, sources
from gpt2_jax.evals.language_modeling import Corpus, LanguageModeling, count_words
from gpt2_jax.evals.perplexity import make_validation
from gpt2_jax.evals.registry import make_task
from gpt2_jax.evals.reported import check_best_is_reported
from gpt2_jax.evals.results import write_results
from gpt2_jax.evals.run import Show, TaskEvaluator, evaluate_and_keep, model_digest
from gpt2_jax.evals.samples import make_sampler
from gpt2_jax.evals.task import Setting, Task
from gpt2_jax.evals.texts import EXAMPLE, checked_texts
from gpt2_jax.evals.validation import ValidationSplit, make_validation_at_lengths
from gpt2_jax.files.paths import local_path, resolve_path
from gpt2_jax.formats.load import open_model
from gpt2_jax.formats.model import Model
from gpt2_jax.formats.run_model import resolve_model
from gpt2_jax.inference.scoring import Scorer
from gpt2_jax.model import attention_kernels
from gpt2_jax.model.defaults import explain_dtype, with_dtype
from gpt2_jax.model.flops import flops_per_token, num_params
from gpt2_jax.model.lengths import at_length, params_at_length
from gpt2_jax.model.trainable import num_trained_params
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.compilation_cache import keep_compiled_programs
from gpt2_jax.parallel.distributed import is_primary, report_lost_peers
from gpt2_jax.parallel.platforms import check_platforms
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.planning.layout import run_layout
from gpt2_jax.planning.memory import state_bytes
from gpt2_jax.prepare.example_files import open_data
from gpt2_jax.tasks import registry
from gpt2_jax.tasks.base import Settings
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.training.initial import read_initial
from gpt2_jax.training.optimizer import make_optimizer
from gpt2_jax.training.run import Evaluator, Setup
from gpt2_jax.training.run_data import examples_tokenizer
from gpt2_jax.training.state import abstract_state
from gpt2_jax.training.trainer import Trainer
from gpt2_jax.training.workdir import read_run_config


def train(
    config: Config,
    workdir: str | Path,
    *,
    stop_at_step: int | None = None,
    check_sha256: bool = False,
    compare_compressors: bool = False,
) -> dict[str, float]:
    """Trains a model, or resumes the run in the workdir.

    Args:
      config: the whole run, as `gpt2_jax.config.load_config` or `from_dict` makes it.
      workdir: the run's folder, which is made if it is missing.
      stop_at_step: save, validate and stop after this step; by default at `train.total_steps`.
      check_sha256: whether to read every shard first and compare its sha256 with meta.json.
      compare_compressors: whether to measure what gzip and xz make of the validation text.

    Returns:
      `step`, where the run now stands, and the numbers of its last validation, such as `eval/loss`.
      With `checkpoint.best`, also `best_step`, the best step that has a checkpoint.
      With `compare_compressors`, also `compared_bytes` and `<compressor> bits_per_byte`, unless the
      validation scores only a part of the text, or the text is a mixture or too long to compress.

    Raises:
      UserError: for an argument of a wrong type or value, or if config, data and workdir do not fit
        together.
      Preempted: after SIGINT or SIGTERM, once the state is saved.
      NumbersWentBad: after `train.max_bad_steps` steps in a row that were not finite.
      StorageError: if no checkpoint can be read or written.
      PeersLost: if another process of the run is gone.
    """
    if not isinstance(config, Config):
        raise UserError(
            f"config must be a Config, as gpt2_jax.config.load_config returns it, not "
            f"{type(config).__name__}"
        )
    arguments.path("workdir", workdir)
    stop_at_step = arguments.optional_integer("stop_at_step", stop_at_step, low=1)
    check_sha256 = arguments.boolean("check_sha256", check_sha256)
    compare_compressors = arguments.boolean("compare_compressors", compare_compressors)
    # `dataclasses.replace` makes a config that was not checked.
    config = config_lib.from_dict(config_lib.to_dict(config))
    keep_compiled_programs()
    chooses_dtype = config.compute.dtype == "auto"
    config = resolve_model(config, read_run_config(resolve_path(workdir, "--workdir")))
    tokenizer = examples_tokenizer(config, workdir)
    config, dtype, kernel = _on_these_devices(config, tokenizer)
    with report_lost_peers():
        log = print_stderr if is_primary() else _silent
        if chooses_dtype:
            log(f"dtype: {dtype}")
        if jax.default_backend() != "cpu":  # where no choice costs memory that nobody expects
            log(f"attention: {kernel}")
        if layout := run_layout(config, jax.devices()):
            log(f"mesh: {layout.text}")
        sets = open_data(config, tokenizer=tokenizer, check_sums=check_sha256, log=log)
        setup = make_setup(config, sets, layout and layout.mesh)
        results = Trainer(config, workdir, setup).run(stop_at_step)
    if compare_compressors and is_primary():
        results |= compression.of_validation(config, sets)
    return results


def _on_these_devices(
    config: Config, tokenizer: Tokenizer | None = None
) -> tuple[Config, str, str]:
    """Returns the config with what data and devices decide, and dtype and kernel in words."""
    if tokenizer is not None:
        config = config_lib.with_vocab_size(config, tokenizer.vocab_size)
    config = resolve_vocab_size(config)
    check_platforms()
    dtype = explain_dtype(config.compute)
    config = dataclasses.replace(config, compute=with_dtype(config.compute))
    return config, dtype, attention_kernels.explain(config.model, config.compute)


def make_setup(config: Config, sets: TokenSets, mesh: MeshConfig | None = None) -> Setup:
    """Returns what a `Trainer` needs for a config: batches, evaluators, and initial parameters."""
    tasks = _make_tasks(config, sets.tokenizer)
    check_best_is_reported(config, sets.val_tokens, [task.name for task in tasks])

    def make_evaluators(abstract_params: Any, mesh: Any, rules: Any) -> Sequence[Evaluator]:
        evaluators: list[Evaluator] = [
            make_validation(config, sets, mesh, rules, abstract_params),
            make_sampler(config, sets.tokenizer),
        ]
        if config.eval.lengths:
            evaluators.append(
                make_validation_at_lengths(config, sets, mesh, rules, abstract_params)
            )
        if tasks:
            evaluators.append(TaskEvaluator(tasks, config, mesh, rules, config.eval.limit))
        return evaluators

    return Setup(
        source=sets.source,
        origins=sets.origins,
        make_evaluators=make_evaluators,
        tokenizer=sets.tokenizer.to_dict(),
        data_fingerprint=sets.fingerprint,
        read_params=lambda name, abstract: read_initial(config, name, sets.tokenizer, abstract),
        mesh=mesh,
    )


def _make_tasks(config: Config, tokenizer: Tokenizer) -> list[Task]:
    setting = Setting(
        local_path(config.eval.data or "", "eval.data"), tokenizer, config.model.context_length
    )
    return [make_task(name, setting) for name in sources.select_of_config(config)]


def dry_run(config: Config) -> dict[str, Any]:
    """Returns the sizes of a run, computed from shapes alone.

    Returns:
      {"parameters", "trained_parameters", "tokens_per_step", "total_tokens", "flops_per_step",
      "mesh": {axis: size}, "layout": the mesh in words and, on several TPUs or GPUs, how it came
      about, "dtype" and "attention": the dtype and the kernel on the local devices, and why they
      are not others, "memory_bytes": {kind: bytes per device}}. Gradients take as
      much memory as the parameters that are trained; activations are not included.

    Raises:
      UserError: if the mesh does not divide the batch or the model, or it is unset and no mesh does
        or is expected to fit.
    """
    config = resolve_model(config)
    config, dtype, kernel = _on_these_devices(config, examples_tokenizer(config))
    layout = run_layout(config, jax.devices())
    mesh = mesh_lib.make_mesh(layout.mesh if layout else config.mesh)
    mesh_lib.check_batch(config.train, mesh)
    state = abstract_state(config, make_optimizer(config), mesh, Rules())
    return {
        "parameters": num_params(config.model),
        "trained_parameters": num_trained_params(config),
        "tokens_per_step": config.tokens_per_step,
        "total_tokens": config.tokens_per_step * config.train.total_steps,
        "flops_per_step": flops_per_token(config.model) * config.tokens_per_step,
        "mesh": mesh_lib.describe(mesh),
        "layout": layout.text if layout else mesh_lib.axes_text(mesh_lib.describe(mesh)),
        "dtype": dtype,
        "attention": kernel,
        "memory_bytes": state_bytes(config, state),
    }


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
    progress: Callable[[str], contextlib.AbstractContextManager[Show]] | None = None,
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
    limit = arguments.optional_integer("limit", limit, low=1)
    stride = arguments.optional_integer("stride", stride, low=1)
    detokenize = arguments.boolean("detokenize", detokenize)
    validation = arguments.boolean("validation", validation)
    context_length = arguments.optional_integer("context_length", context_length, low=1)
    if progress is not None and not callable(progress):
        raise UserError(f"progress must be a function, not {type(progress).__name__}")
    tasks = arguments.texts("tasks", tasks, example="['hellaswag']")
    if not isinstance(data, str) or data:
        arguments.path("data", data)
    texts = checked_texts({} if texts is None else texts)
    if not tasks and not texts and not validation:
        raise UserError("there is nothing to score: name tasks, or texts such as " + EXAMPLE)
    keep_compiled_programs()
    data = local_path(data, "data")
    written, tasks = registry.split_names(tasks)
    writing = [registry.make_task(name) for name in written]
    tasks = sources.select(",".join(tasks), data).run if tasks else []
    folder = None if out is None else local_path(arguments.path("out", out), "out")
    with open_model(model, ema=arguments.boolean("ema", ema), dtype=dtype) as reader:
        config = reader.config
        resized = at_length(config.model, context_length or config.model.context_length)
        T = resized.context_length
        setting = Setting(data, reader.tokenizer, T, stride, detokenize)
        ready = [make_task(name, setting) for name in tasks]
        for name, path in texts.items():
            corpus = Corpus(name, words=count_words)
            ready.append(LanguageModeling(corpus, setting, path))
        of_run = [ValidationSplit(reader, T, limit)] if validation else []
        if any(each.name in texts for each in of_run):
            raise UserError(f"texts: {of_run[0].name} is the validation split: choose another name")
        read = reader.read()
    digest = "" if folder is None else model_digest(read.params, config)
    scorings: dict[str, Callable[[Show], dict[str, float]]] = {}
    params: Any = params_at_length(config.model, read.params, T) if ready or writing else None
    settings = Settings(arguments.text("split", split), limit, folder, digest)
    sized = Model(dataclasses.replace(config, model=resized), params, read.tokenizer, 0, read.path)
    for task in writing:
        scorings[task.name] = functools.partial(task.evaluate, sized, data, settings)
    if ready:
        scorer = Scorer(params, resized, config.compute)
        for task in ready:
            scorings[task.name] = functools.partial(
                evaluate_and_keep, task, scorer, limit, folder, digest
            )
    for each in of_run:
        scorings[each.name] = functools.partial(each.evaluate, read.params)
    results: dict[str, dict[str, float]] = {}
    for name, score in scorings.items():
        with progress(name) if progress else contextlib.nullcontext(_ignore) as show:
            results[name] = score(show)
        if folder is not None:
            write_results(folder / "results.json", str(model), digest, results)
    return {
        "model": str(model),
        "step": read.step,
        "ema": ema,
        "dtype": config.compute.dtype,
        "context_length": T,
        "limit": limit,
        "tasks": results,
        "protocols": {task.name: task.protocol for task in [*writing, *ready, *of_run]},
    }


def _ignore(done: int, total: int) -> None:
    """Shows no progress."""


def _silent(line: str) -> None:
    """Prints nothing."""
