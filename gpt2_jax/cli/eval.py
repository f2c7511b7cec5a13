"""`gpt2-jax eval`: score a model on evaluations."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpt2_jax.cli import MODEL_HELP
from gpt2_jax.errors import UserError, did_you_mean

HELP = "Score a model on evaluations, each by a published protocol."
EXAMPLES = """\
gpt2-jax eval --model runs/small --tasks lambada_openai,hellaswag --data evaluations/
gpt2-jax eval --model gpt2 --tasks hellaswag --data evaluations/ --limit 500 --json"""


_LINE_EVERY = 30.0  # seconds between lines of progress where there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument("--model", required=True, metavar="M", help=MODEL_HELP)
    parser.add_argument(
        "--tasks", required=True, metavar="A,B", help=f"any of {', '.join(_tasks())}"
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="folder with the tasks' files; see docs"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N examples of each")
    parser.add_argument(
        "--out", metavar="DIR", help="keep each example's result here; run again, it goes on"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Evaluates; returns the exit status."""
    names = [name.strip() for name in args.tasks.split(",")]
    known = _tasks()
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are: {', '.join(known)}"
            raise UserError(f"unknown task {name!r}{hint}")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be at least 1, not {args.limit}")
    # Data first: what is missing there is known in an instant.
    tasks = {name: known[name](Path(args.data)) for name in names}
    from gpt2_jax.checkpoint.load import load
    from gpt2_jax.evals.run import evaluate
    from gpt2_jax.evals.scoring import Scorer
    from gpt2_jax.parallel.malloc import keep_freed_memory

    keep_freed_memory()
    loaded = load(args.model)
    scorer = Scorer(loaded.params, loaded.config.model)
    results: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        with _progress(name) as show:
            results[name] = evaluate(task, scorer, loaded, args.limit, args.out, show)
    # One example has no standard error, and JSON no NaN.
    document = {
        "model": args.model,
        "tasks": {
            name: {key: None if math.isnan(value) else value for key, value in metrics.items()}
            for name, metrics in results.items()
        },
    }
    if args.out is not None:
        (Path(args.out) / "results.json").write_text(json.dumps(document, indent=2) + "\n")
    if args.json:
        print(json.dumps(document))
    else:
        print(_table(results, {name: task.protocol for name, task in tasks.items()}))
    return 0


def _tasks() -> dict[str, Callable[[Path], Any]]:
    """Every task by its name."""
    from gpt2_jax.evals.hellaswag import HellaSwag
    from gpt2_jax.evals.lambada import Lambada

    return {task.name: task for task in (Lambada, HellaSwag)}


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A function to tell (examples scored, examples in all): a bar, or a line now and then."""
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
                console.print(f"{name}: {done:,} of {total:,} examples")

        yield show


def _table(results: Mapping[str, Mapping[str, float]], protocols: Mapping[str, str]) -> str:
    """A line per number with its standard error, and the protocols below."""
    lines = []
    for task, metrics in results.items():
        for name, value in metrics.items():
            if name != "count" and not name.endswith("_stderr"):
                error = metrics[f"{name}_stderr"]
                lines.append(f"{task:18}{name:12}{value:10.4f} ± {error:.4f}")
        lines.append(f"{task:18}{'examples':12}{metrics['count']:10,}")
    notes = [f"{task}: {protocol}" for task, protocol in protocols.items()]
    return "\n".join([*lines, "", *notes])
