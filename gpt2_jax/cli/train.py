"""`gpt2-jax train`: train a model, or go on with a run. Joins what the rooms keep apart."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2_jax import config as config_lib
from gpt2_jax.config import Config
from gpt2_jax.errors import UserError
from gpt2_jax.evals import sources

if TYPE_CHECKING:
    from gpt2_jax.train.run import Evaluator

HELP = "Train a model, or go on with the run in a workdir."
EXAMPLES = """\
gpt2-jax train --config configs/quickstart.py --workdir runs/quickstart
gpt2-jax train --config configs/gpt2_small.py --workdir runs/small --config.train.batch_size=64
gpt2-jax train --config configs/gpt2_xl.py --dry_run --json
gpt2-jax train --config configs/quickstart.py --show_knobs"""

# xz takes a second a megabyte or so: longer texts go without the comparison.
_LONGEST_COMPRESSED = 16 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="Python file with the run's knobs"
    )
    parser.add_argument(
        "--workdir", metavar="DIR", help="the run's folder; made if missing, resumed if it is a run"
    )
    parser.add_argument(
        "--stop_at_step", type=int, metavar="N", help="save, validate and stop after step N"
    )
    parser.add_argument(
        "--check_sha256",
        action="store_true",
        help="first read every shard and compare its sha256 with meta.json",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="check the config and show sizes; trains nothing"
    )
    parser.add_argument(
        "--show_knobs", action="store_true", help="list every knob with its value and meaning"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Trains; returns the exit status."""
    config = config_lib.load_config(args.config, args.config_overrides)
    if args.show_knobs and args.dry_run:
        raise UserError("--show_knobs and --dry_run exclude each other")
    if args.check_sha256 and args.dry_run:
        raise UserError("--check_sha256 and --dry_run exclude each other: a dry run reads no data")
    if args.show_knobs:
        _show_knobs(config, args.json)
        return 0
    if args.stop_at_step is not None and args.stop_at_step < 1:
        raise UserError(f"--stop_at_step must be at least 1, not {args.stop_at_step}")
    if not args.dry_run:
        if args.workdir is None:
            raise UserError("--workdir DIR is missing: the folder that keeps the run")
        from gpt2_jax.files.storage import storage_path

        storage_path(args.workdir, "--workdir")
    _task_names(config)
    # Only now the imports that take seconds: a typo has been answered by here.
    from gpt2_jax.model import attention
    from gpt2_jax.parallel.distributed import initialize, is_primary, peers_expected
    from gpt2_jax.parallel.malloc import keep_freed_memory

    keep_freed_memory()
    initialize()
    attention.choose(config.model)
    if args.dry_run:
        report = _dry_run(config)
        if is_primary():
            _note_missing_data(config)
            print(json.dumps(report) if args.json else _readable(report))
        return 0
    with peers_expected():
        results = _train(config, args.workdir, args.stop_at_step, args.check_sha256)
    if args.json and is_primary():
        print(json.dumps({"workdir": args.workdir, **results}))
    return 0


def _train(
    config: Config, workdir: str, stop_at_step: int | None, check_sums: bool
) -> dict[str, float]:
    from gpt2_jax.cli.token_sets import open_sets
    from gpt2_jax.evals.run import TaskEvaluator
    from gpt2_jax.parallel.distributed import is_primary
    from gpt2_jax.train.initial import read_initial
    from gpt2_jax.train.run import Setup
    from gpt2_jax.train.trainer import Trainer

    sets = open_sets(config, check_sums=check_sums)
    tokenizer = sets.tokenizer
    tasks = _tasks(config, tokenizer)

    def make_evaluators(abstract_params: Any, mesh: Any, rules: Any) -> Sequence[Any]:
        perplexity = sets.make_perplexity(config, mesh, rules, abstract_params)
        evaluators = [perplexity, _sampler(config, tokenizer)]
        if tasks:
            limit = config.eval.limit
            evaluators += [TaskEvaluator(tasks, config.model, mesh, rules, limit)]
        return evaluators

    def read_params(model: str, abstract: Any) -> Any:
        return read_initial(config, model, tokenizer, abstract)

    setup = Setup(
        source=sets.source,
        origins=sets.origins,
        make_evaluators=make_evaluators,
        tokenizer=tokenizer.to_dict(),
        data_fingerprint=sets.fingerprint,
        read_params=read_params,
    )
    results = Trainer(config, workdir, setup).run(stop_at_step)
    val_tokens, *more = sets.val_tokens.values()
    whole = config.eval.batches == -1 and len(val_tokens) < _LONGEST_COMPRESSED and not more
    if "eval/bits_per_byte" in results and whole and is_primary():
        scored = val_tokens.read(1, len(val_tokens) - 1)
        text = tokenizer.decode_bytes(scored[scored != tokenizer.eot])
        results |= _compare(results, text)
    return results


def _tasks(config: Config, tokenizer: Any) -> list[Any]:
    """The evaluations to run at every validation, their data read."""
    from gpt2_jax.evals.registry import make_task
    from gpt2_jax.evals.task import Setting

    folder = Path(config.eval.data or "")
    setting = Setting(folder, tokenizer, config.model.context_length)
    return [make_task(name, setting) for name in _task_names(config)]


def _task_names(config: Config) -> list[str]:
    """The evaluations that the config names, all of which have data."""
    if not config.eval.tasks:
        return []
    if config.eval.data is None:
        raise UserError("eval.tasks needs data: name its folder with --config.eval.data=DIR")
    return sources.select(config.eval.tasks, Path(config.eval.data)).run


def _sampler(config: Config, tokenizer: Any) -> Evaluator:
    """Evaluator: an unconditional text, from the same seed every time."""
    import jax

    from gpt2_jax.inference.generate import decode_params, generate_text
    from gpt2_jax.inference.sampling import SamplingOptions

    # An empty prompt takes one place. Elsewhere than here the parameters may be out of reach.
    count = min(config.eval.sample_tokens, config.model.context_length - 1)
    enabled = count > 0 and jax.process_count() == 1

    def sample(params: Any, tick: Callable[[], None]) -> Iterator[tuple[str, str]]:
        if enabled:
            ready = decode_params(params, config.model)
            samples = generate_text(
                ready,
                config.model,
                tokenizer,
                [""],
                max_new_tokens=count,
                options=SamplingOptions(temperature=0.8, top_k=50),
            )
            yield "sample", samples[0].text

    return sample


def _compare(results: dict[str, float], text: bytes) -> dict[str, float]:
    """Shows the held-out loss beside what general-purpose compressors make of the text."""
    from gpt2_jax.evals.compression import compressed_bits_per_byte

    yardsticks = compressed_bits_per_byte(text)
    bits = results["eval/bits_per_byte"]
    beside = ", ".join(f"{name} {value:.3f}" for name, value in yardsticks.items())
    print(
        f"held-out loss {results['eval/loss']:.4f} nats per token = {bits:.3f} bits per byte "
        f"(on the same {len(text):,} bytes: {beside})",
        file=sys.stderr,
    )
    return {f"{name} bits_per_byte": value for name, value in yardsticks.items()}


def _dry_run(config: Config) -> dict[str, Any]:
    """What the run would be: sizes and layout, from shapes alone."""
    from gpt2_jax.model.flops import flops_per_token, num_params
    from gpt2_jax.parallel import mesh as mesh_lib
    from gpt2_jax.parallel.rules import Rules
    from gpt2_jax.train.optimizer import make_optimizer
    from gpt2_jax.train.state import abstract_state, bytes_per_device

    mesh = mesh_lib.make_mesh(config.mesh)
    mesh_lib.check_batch(config.train, mesh)
    state = abstract_state(config, make_optimizer(config), mesh, Rules())
    return {
        "parameters": num_params(config.model),
        "tokens_per_step": config.tokens_per_step,
        "total_tokens": config.tokens_per_step * config.train.total_steps,
        "flops_per_step": flops_per_token(config.model) * config.tokens_per_step,
        "mesh": mesh_lib.describe(mesh),
        # Per device. Gradients take the room of the parameters; activations come on top.
        "memory_bytes": {
            "parameters": bytes_per_device(state.params),
            "optimizer": bytes_per_device(state.opt_state),
            "gradients": bytes_per_device(state.params),
        },
    }


def _note_missing_data(config: Config) -> None:
    """Says what a run would be refused for; what is reported needs no data."""
    try:
        missing = [path for path in config.data.shares if not Path(path).is_dir()]
    except UserError as error:
        print(f"note: {error}", file=sys.stderr)
        return
    if missing:
        print(
            f"note: no data folder {', '.join(missing)}: make it with gpt2-jax prepare, or name "
            "another",
            file=sys.stderr,
        )


def _readable(report: dict[str, Any]) -> str:
    memory = "  ".join(
        f"{kind} {size / 2**20:,.1f}" for kind, size in report["memory_bytes"].items()
    )
    mesh = " x ".join(f"{axis} {size}" for axis, size in report["mesh"].items())
    return (
        f"parameters       {report['parameters']:,}\n"
        f"tokens per step  {report['tokens_per_step']:,}\n"
        f"total tokens     {report['total_tokens']:,}\n"
        f"FLOPs per step   {report['flops_per_step']:.3g} (6N + 6LTd per token)\n"
        f"mesh             {mesh}\n"
        f"MiB per device   {memory}  (activations not included)"
    )


def _show_knobs(config: Config, as_json: bool) -> None:
    values = config_lib.to_dict(config)
    if as_json:
        print(json.dumps(values))
        return
    for knob in config_lib.knobs():
        section, name = knob.key.split(".")
        choices = f" ({', '.join(map(str, knob.choices))})" if knob.choices else ""
        print(f"--config.{knob.key}={values[section][name]}\n    {knob.help}{choices}")
