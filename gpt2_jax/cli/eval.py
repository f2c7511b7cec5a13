"""`gpt2-jax eval`: score a model on evaluations."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpt2_jax.cli import MODEL_HELP
from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.evals import sources

if TYPE_CHECKING:
    from gpt2_jax.config import ModelConfig
    from gpt2_jax.evals.task import Task

HELP = "Score a model on evaluations, each by a published protocol."
EXAMPLES = """\
gpt2-jax eval --model runs/small --tasks lambada_openai,hellaswag --data evaluations/
gpt2-jax eval --model gpt2 --tasks hellaswag --data evaluations/ --download --limit 500 --json
gpt2-jax eval --model gpt2 --tasks gpt2_paper --data evaluations/ --out runs/gpt2-table
gpt2-jax eval --model runs/small --text letters.txt --stride 256"""


_LINE_EVERY = 30.0  # seconds between lines of progress where there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    names = ", ".join([*sources.SOURCES, *(f"{group} (a table)" for group in sources.GROUPS)])
    parser.add_argument("--model", required=True, metavar="M", help=MODEL_HELP)
    parser.add_argument("--tasks", metavar="A,B", help=f"any of {names}")
    parser.add_argument("--data", metavar="DIR", help="folder with the tasks' files; see docs")
    parser.add_argument(
        "--text", nargs="+", default=[], metavar="FILE", help="perplexity of texts of your own"
    )
    parser.add_argument(
        "--download", action="store_true", help="get files that are missing from the hub"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N examples of each")
    parser.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="tokens scored per window of a long text; default: windows do not overlap",
    )
    parser.add_argument(
        "--no_detokenize", action="store_true", help="leave texts cut into tokens as they are"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="keep each example's result here; run again, it goes on"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Evaluates; returns the exit status."""
    for flag in ("limit", "stride"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag} must be at least 1, not {value}")
    # Data first: what is missing there is known in an instant.
    selection, texts = _select(args), _texts(args)
    from gpt2_jax.evals.language_modeling import Corpus, LanguageModeling, count_words
    from gpt2_jax.evals.registry import make_task
    from gpt2_jax.evals.task import Setting
    from gpt2_jax.formats.load import abstract_params, find
    from gpt2_jax.parallel.malloc import keep_freed_memory

    keep_freed_memory()
    model = find(args.model)
    config = model.config.model
    setting = Setting(
        Path(args.data or ""),
        model.tokenizer,
        config.context_length,
        args.stride,
        not args.no_detokenize,
    )
    tasks = [make_task(name, setting) for name in selection.run]
    for name, path in texts.items():
        tasks.append(LanguageModeling(Corpus(name, words=count_words), setting, path))
    results = _evaluate(tasks, model.read(abstract_params(config)), config, args)
    if args.json:
        document = {
            "model": args.model,
            "step": model.step,
            "limit": args.limit,
            "tasks": _plain(results),
            "protocols": {task.name: task.protocol for task in tasks},
            "not_run": selection.missing,
        }
        print(json.dumps(document))
        return 0
    print(_table(results))
    if selection.groups:
        print("\n" + _paper(results, selection.missing))
    print("\n" + "\n".join(f"{task.name}: {task.protocol}" for task in tasks))
    return 0


def _select(args: argparse.Namespace) -> sources.Selection:
    """What to run of the tasks, their data downloaded if that is asked for."""
    if args.tasks is None:
        if not args.text:
            raise UserError("nothing to score: name --tasks A,B with --data DIR, or --text FILE")
        return sources.Selection([], [], [])
    if args.data is None:
        raise UserError("--tasks needs data: name its folder with --data DIR")
    if args.download:
        sources.download(args.tasks, Path(args.data), lambda line: print(line, file=sys.stderr))
    return sources.select(args.tasks, Path(args.data))


def _texts(args: argparse.Namespace) -> dict[str, Path]:
    """The texts of `--text` by their names."""
    texts: dict[str, Path] = {}
    for path in map(Path, args.text):
        if not path.is_file():
            raise UserError(f"--text {path} is no file")
        if path.name in texts or path.name in sources.SOURCES:
            raise UserError(f"--text {path}: there is another {path.name}; rename one")
        texts[path.name] = path
    return texts


def _evaluate(
    tasks: Sequence[Task], params: Any, config: ModelConfig, args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Metrics by task; with `--out`, rows and numbers are on disk as soon as they are known."""
    from gpt2_jax.evals.run import Log, evaluate, model_digest
    from gpt2_jax.inference.scoring import Scorer

    out = None if args.out is None else Path(args.out)
    digest = model_digest(params, config) if out is not None else ""
    scorer = Scorer(params, config)
    results: dict[str, dict[str, float]] = {}
    for task in tasks:
        with contextlib.ExitStack() as stack:
            log = Log(out, task, digest) if out is not None else None
            if log is not None:
                stack.callback(log.close)
            show = stack.enter_context(_progress(task.name))
            results[task.name] = evaluate(task, scorer, args.limit, log, show)
        if out is not None:
            _write_results(out / "results.json", args.model, digest, _plain(results))
    return results


def _write_results(path: Path, model: str, digest: str, results: dict[str, Any]) -> None:
    """Writes the numbers, beside those of other tasks that the same model has there already."""
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        tasks = before["tasks"] if before.get("digest") == digest else {}
    except (ValueError, RecursionError, LookupError, AttributeError):
        tasks = {}
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    document = {"model": model, "digest": digest, "tasks": tasks | results}
    try:
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"can't write {path}: {error.strerror}") from error


def _plain(results: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """What JSON has: no NaN, such as one example's standard error, and nothing infinite."""
    return {
        name: {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        for name, metrics in results.items()
    }


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


def _table(results: Mapping[str, Mapping[str, float]]) -> str:
    """A line per number with its standard error."""
    from gpt2_jax.train.progress import decimals

    lines = []
    width = max(18, *(len(task) + 2 for task in results))
    for task, metrics in results.items():
        for name, value in metrics.items():
            if name != "count" and not name.endswith("_stderr"):
                error = metrics[f"{name}_stderr"]
                shown = f"{decimals(value):>12} ± {decimals(error) if error == error else '-'}"
                lines.append(f"{task:{width}}{name:18}{shown}")
        lines.append(f"{task:{width}}{'examples':18}{metrics['count']:12,}")
    return "\n".join(lines)


def _paper(results: Mapping[str, Mapping[str, float]], missing: Sequence[str]) -> str:
    """The results beside the paper's, and what stands between them."""
    from gpt2_jax.evals import paper

    lines = [*paper.table(results), "", paper.NOTES]
    if missing:
        lines += ["Not run, for want of data:"]
        lines += [
            f"  {name}: {sources.SOURCES[name].file}, {sources.SOURCES[name].origin}"
            for name in missing
        ]
    return "\n".join(lines)
