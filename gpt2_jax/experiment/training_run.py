"""Puts one training run together: data, evaluators and the trainer, or the sizes of it alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config, MeshConfig, arguments
from gpt2_jax.data.token_sets import TokenSets, resolve_vocab_size
from gpt2_jax.errors import UserError, print_stderr
from gpt2_jax.evals import compression, sources
from gpt2_jax.evals.perplexity import make_validation
from gpt2_jax.evals.registry import make_task
from gpt2_jax.evals.reported import check_best_is_reported
from gpt2_jax.evals.run import TaskEvaluator
from gpt2_jax.evals.samples import make_sampler
from gpt2_jax.evals.task import Setting, Task
from gpt2_jax.evals.validation import make_validation_at_lengths
from gpt2_jax.files.paths import local_path, resolve_path
from gpt2_jax.formats.run_model import resolve_model
from gpt2_jax.model import attention_kernels
from gpt2_jax.model.defaults import explain_dtype, with_dtype
from gpt2_jax.model.flops import flops_per_token, num_params
from gpt2_jax.model.trainable import num_trained_params
from gpt2_jax.parallel import mesh as mesh_lib
from gpt2_jax.parallel.compilation_cache import keep_compiled_programs
from gpt2_jax.parallel.distributed import is_primary, report_lost_peers
from gpt2_jax.parallel.platforms import check_platforms
from gpt2_jax.parallel.rules import Rules
from gpt2_jax.planning.layout import run_layout
from gpt2_jax.planning.memory import state_bytes
from gpt2_jax.prepare.example_files import open_data
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


def _silent(line: str) -> None:
    """Prints nothing."""
