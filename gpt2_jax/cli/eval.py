"""Implements `gpt2-jax eval`, which scores a model on evaluations."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpt2_jax.cli import DTYPE_HELP, EMA_HELP, MODEL_HELP, compilation_cache
from gpt2_jax.config.compute import DTYPES
from gpt2_jax.errors import UserError
from gpt2_jax.evals import sources
from gpt2_jax.files.paths import local_path
from gpt2_jax.tasks import registry

HELP = """\
Score a model on evaluations, each by a published protocol, and on texts of your own.

Each task reads its file in --data. Each number is shown with its standard error, and the protocol
that it follows is printed below the table."""
EXAMPLES = """\
gpt2-jax eval --model runs/small --tasks lambada_openai,hellaswag --data evaluations/
gpt2-jax eval --model gpt2 --tasks hellaswag --data evaluations/ --download --limit 500 --json
gpt2-jax eval --model gpt2 --tasks gpt2_paper --data evaluations/ --out runs/gpt2-table
gpt2-jax eval --model runs/translation --tasks translation --data pairs/ --out runs/translated
gpt2-jax eval --model runs/small --text letters.txt --stride 256
gpt2-jax eval --model runs/small --validation --context_length 2048 --ema"""


_LINE_EVERY = 30.0  # seconds between lines of progress without a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    _add_model(parser.add_argument_group("the model"))
    _add_data(parser.add_argument_group("what to score it on"))
    _add_protocol(parser.add_argument_group("how much of it, and how"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out",
        metavar="DIR",
        help="keep each example's result here, so that the same command resumes",
    )
    output.add_argument(
        "--json", action="store_true", help="print one JSON document instead of a table"
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    """Declares which model is scored."""
    group.add_argument("--model", required=True, metavar="M", help=MODEL_HELP)
    group.add_argument("--ema", action="store_true", help=EMA_HELP)
    group.add_argument("--dtype", choices=DTYPES, help=DTYPE_HELP)
    group.add_argument(
        "--context_length",
        type=int,
        metavar="N",
        help="tokens that the model sees at once; default: as in training; only "
        "model.position=learned allows no more",
    )
    compilation_cache.add_argument(group)


def _add_data(group: argparse._ArgumentGroup) -> None:
    """Declares the tasks and texts."""
    names = ", ".join(
        [
            *(f"{name} (the paper's table)" for name in sources.GROUPS),
            *sources.SOURCES,
            *registry.TASKS,
        ]
    )
    group.add_argument("--tasks", metavar="A,B", help=f"tasks, any of: {names}, or FILE.py")
    group.add_argument(
        "--data", metavar="DIR", help="folder with the tasks' files; see docs/evaluation.md"
    )
    group.add_argument(
        "--download", action="store_true", help="download missing files from the hub"
    )
    group.add_argument(
        "--text", nargs="+", default=[], metavar="FILE", help="texts whose perplexity to measure"
    )
    group.add_argument(
        "--validation",
        action="store_true",
        help="score the validation split of the run's data, as training does",
    )


def _add_protocol(group: argparse._ArgumentGroup) -> None:
    """Declares which examples count, and how texts are read."""
    group.add_argument(
        "--limit", type=int, metavar="N", help="score only the first N examples of each"
    )
    group.add_argument(
        "--split",
        choices=registry.SPLITS,
        default="test",
        help="which examples of tasks that the model answers by writing (default: test)",
    )
    group.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="tokens scored per window of a long text; by default windows do not overlap",
    )
    group.add_argument(
        "--no_detokenize", action="store_true", help="do not convert tokenized texts to prose"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluates the model and returns the exit status."""
    for flag in ("limit", "stride", "context_length"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag} must be at least 1, not {value}")
    out = None if args.out is None else local_path(args.out, "--out")
    # The data is checked first, so that missing files are reported at once.
    written, names = registry.split_names(args.tasks or "")
    selection, texts = _select(args, written, names), _texts(args)
    from gpt2_jax import experiment
    from gpt2_jax.evals.results import plain
    from gpt2_jax.parallel.malloc import keep_freed_memory

    keep_freed_memory()
    compilation_cache.apply(args)
    report = experiment.evaluate(
        args.model,
        [*written, *selection.run],
        args.data or "",
        texts=texts,
        limit=args.limit,
        split=args.split,
        stride=args.stride,
        detokenize=not args.no_detokenize,
        validation=args.validation,
        context_length=args.context_length,
        ema=args.ema,
        dtype=args.dtype,
        out=out,
        progress=_progress,
    )
    results, protocols = report["tasks"], report["protocols"]
    if args.json:
        print(json.dumps(report | {"tasks": plain(results), "not_run": selection.missing}))
        return 0
    print(_table(results))
    if selection.groups:
        print("\n" + _paper(results, selection.missing))
    print("\n" + "\n".join(f"{name}: {protocol}" for name, protocol in protocols.items()))
    return 0


def _select(
    args: argparse.Namespace, written: Sequence[str], names: Sequence[str]
) -> sources.Selection:
    """Returns which of the tasks that score texts to run, after downloading their data.

    Args:
      args: the flags.
      written: the tasks that the model answers by writing.
      names: all others.
    """
    if args.tasks is None:
        if not args.text and not args.validation:
            raise UserError(
                "there is nothing to score: pass --tasks A,B with --data DIR, --text FILE, or "
                "--validation"
            )
        for flag in ("download", "data"):
            if getattr(args, flag):
                raise UserError(f"--{flag} needs --tasks A,B, without which it has no effect")
        if args.stride and not args.text:
            raise UserError("--stride has no effect on --validation, whose windows do not overlap")
        return sources.Selection([], [], [])
    if args.data is None:
        raise UserError("--tasks needs data: name its folder with --data DIR")
    data = local_path(args.data, "--data")
    if written and not names:
        if args.download:
            raise UserError(f"--download: the hub has no data of {', '.join(written)}: omit it")
        return sources.Selection([], [], [])
    if args.download:
        sources.download(",".join(names), data, lambda line: print(line, file=sys.stderr))
    return sources.select(",".join(names), data, registry.NAMES)


def _texts(args: argparse.Namespace) -> dict[str, Path]:
    """Returns the files of `--text` by their names."""
    texts: dict[str, Path] = {}
    for path in (local_path(name, "--text") for name in args.text):
        if not path.is_file():
            raise UserError(f"--text {path} is not a file")
        if path.name in texts or path.name in sources.SOURCES:
            raise UserError(
                f"--text {path}: the name {path.name} is taken by another text or a task; rename it"
            )
        texts[path.name] = path
    return texts


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Shows progress, as a bar on a terminal and as occasional lines otherwise."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task(name)
        last = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal last
            bar.update(shown, completed=done, total=total)
            if not console.is_terminal and (done == total or time.monotonic() - last > _LINE_EVERY):
                last = time.monotonic()
                console.print(f"{name}: {done:,} of {total:,} {_unit(name)}")

        yield show


def _unit(name: str) -> str:
    """Returns what is counted: validation's windows may hold several examples, or a part of one."""
    return "windows" if name.startswith("validation") else "examples"


def _table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a line for each number with its standard error."""
    from gpt2_jax.training.progress import decimals

    lines = []
    width = max(18, *(len(task) + 2 for task in results))
    for task, metrics in results.items():
        for name, value in metrics.items():
            if name == "count" or name.endswith(("_stderr", "_low", "_high")):
                continue
            if isinstance(value, int):
                lines.append(f"{task:{width}}{name:18}{value:12,}")
                continue
            error = metrics.get(f"{name}_stderr", math.nan)
            shown = f"{decimals(value):>12} ± {decimals(error) if error == error else '-'}"
            if not math.isnan(low := metrics.get(f"{name}_low", math.nan)):
                shown += f"   95 %: {decimals(low)} to {decimals(metrics[f'{name}_high'])}"
            lines.append(f"{task:{width}}{name:18}{shown}")
        lines.append(f"{task:{width}}{_unit(task):18}{metrics['count']:12,}")
    return "\n".join(lines)


def _paper(results: Mapping[str, Mapping[str, float]], missing: Sequence[str]) -> str:
    """Returns the results beside the paper's, and what limits the comparison."""
    from gpt2_jax.evals import paper

    lines = [*paper.table(results), "", paper.NOTES]
    if missing:
        lines += ["Not run because their data is missing:"]
        lines += [
            f"  {name}: {sources.SOURCES[name].file}, from {sources.SOURCES[name].origin}"
            for name in missing
        ]
    return "\n".join(lines)
