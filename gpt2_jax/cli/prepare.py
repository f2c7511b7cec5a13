"""`gpt2-jax prepare`: turns text into token shards."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from gpt2_jax.config.fields import parse_fields
from gpt2_jax.errors import UserError, did_you_mean, shortened
from gpt2_jax.files.paths import local_path
from gpt2_jax.prepare import engines
from gpt2_jax.prepare.bpe import is_trained_name, vocabulary_size
from gpt2_jax.prepare.corpora import CORPORA, get_corpus
from gpt2_jax.prepare.example_files import example_files
from gpt2_jax.prepare.examples import prepare_examples
from gpt2_jax.prepare.formats import describe_formats
from gpt2_jax.prepare.inputs import input_files, read_inputs
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.tasks import registry
from gpt2_jax.tokenizers.tokenizer import PREPARE_CHOICES, Tokenizer

HELP = "Turn text into token shards."

EXAMPLES = """\
gpt2-jax prepare --corpus python-stdlib --tokenizer byte --out runs/data/stdlib
gpt2-jax prepare --corpus tinyshakespeare --tokenizer char --out runs/data/shakespeare_char
gpt2-jax prepare --input novels/ notes.txt --out runs/data/novels
gpt2-jax prepare --input 'crawl/**/*.jsonl.gz' --text_field content --out runs/data/crawl
gpt2-jax prepare --input hub:HuggingFaceFW/fineweb:sample-10BT --out runs/data/fineweb
gpt2-jax prepare --format examples --input answers.jsonl --tokenizer gpt2 --out runs/data/answers
gpt2-jax prepare --task translation --input pairs/ --tokenizer bpe:4096 --out runs/data/pairs
gpt2-jax prepare --input laws/ --tokenizer downloads/german_gpt2 --out runs/data/laws
gpt2-jax prepare --input /shared/text --engine ray --ray_address auto --out /shared/tokens"""

_FIELDS = "prompt:prompt,answer:answer"
_CORPORA = "; ".join(f"{corpus.name} ({corpus.description})" for corpus in CORPORA.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this verb's flags."""
    _add_input(parser.add_argument_group("text to read"))
    _add_examples(parser.add_argument_group("examples of prompts and answers"))
    _add_output(parser.add_argument_group("tokens to write"))
    _add_processes(parser.add_argument_group("what encodes"))
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _add_input(group: argparse._ArgumentGroup) -> None:
    """Declares which text is read."""
    group.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help="files, folders of them, quoted patterns, or hub:OWNER/NAME[:CONFIG[:SPLIT]]; in "
        "folders and patterns, links are followed, and hidden files and folders (.NAME) left out "
        f"unless named; a file is {describe_formats()}",
    )
    group.add_argument("--corpus", metavar="NAME", help=f"corpus, instead of --input: {_CORPORA}")
    group.add_argument(
        "--text_field",
        default="text",
        metavar="NAME",
        help="field or column with the text (default: text)",
    )
    group.add_argument(
        "--skip_invalid",
        action="store_true",
        help="leave out and count the rows of JSON lines, Parquet files and data sets of the hub "
        "that have no valid text, such as null (default: the first one is an error)",
    )


def _add_examples(group: argparse._ArgumentGroup) -> None:
    """Declares how examples are read."""
    group.add_argument(
        "--format",
        choices=("documents", "examples"),
        default="documents",
        help="what the lines of --input are: documents, or examples of prompts and answers, of "
        "which a model learns the answers (default: documents); a folder with train.jsonl and "
        "val.jsonl keeps its splits",
    )
    group.add_argument(
        "--fields",
        metavar="NAMES",
        help=f"fields of examples, such as prompt:question,answer:reply (default: {_FIELDS})",
    )
    group.add_argument(
        "--task",
        metavar="NAME",
        help="format the examples of a task, whose data is the folder --input, any of: "
        f"{', '.join(registry.TASKS)}, or FILE.py; see docs/tasks.md",
    )
    group.add_argument(
        "--fraction",
        type=float,
        metavar="F",
        help="with --task, the share of the training examples to take, such as 0.1 (default: all)",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    """Declares what is written, and where."""
    group.add_argument(
        "--tokenizer",
        metavar="NAME",
        help=f"how text becomes tokens: {', '.join(PREPARE_CHOICES)}, bpe:N, a byte-pair encoding "
        "of N ids trained on this text, or M, a model's: a run's workdir or a folder in Hugging "
        "Face's or OpenAI's format (default: gpt2; music has its own)",
    )
    group.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    group.add_argument(
        "--val_fraction",
        type=float,
        default=0.1,
        help="fraction at the end of the token stream that becomes the val split (default: 0.1; "
        "0: no val split)",
    )


def _add_processes(group: argparse._ArgumentGroup) -> None:
    """Declares what encodes."""
    group.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that encode (default: one per CPU); the result does not depend on it",
    )
    group.add_argument(
        "--engine",
        choices=engines.NAMES,
        default="processes",
        help="what encodes: processes of this machine, or Ray, on machines that share the files "
        "(default: processes)",
    )
    group.add_argument(
        "--ray_address",
        metavar="ADDRESS",
        help="address of a Ray cluster, such as auto or HOST:6379 (default: start one here)",
    )


def run(args: argparse.Namespace) -> int:
    """Prepares the data and prints a summary; returns the exit status."""
    if (args.input is None) == (args.corpus is None):
        raise UserError("give exactly one of --input PATH... or --corpus NAME")
    if args.task is not None:
        return _show(args, _prepare_task(args))
    if args.fraction is not None:
        raise UserError("--fraction is for --task: add it, or omit the flag")
    if args.fields is not None and args.format != "examples":
        raise UserError("--fields is for --format examples: add it, or omit the flag")
    if args.format == "examples":
        return _show(args, _prepare_examples(args))
    if args.corpus is not None:
        rows = {"--skip_invalid": args.skip_invalid, "--text_field": args.text_field != "text"}
        for flag in (flag for flag, given in rows.items() if given):
            raise UserError(f"{flag} is for rows of --input; a corpus has none: omit it")
        corpus = get_corpus(args.corpus)
    else:
        corpus = read_inputs(args.input, args.text_field, args.skip_invalid)
    summary = prepare(
        corpus,
        _read_tokenizer(args.tokenizer),
        args.out,
        **_settings(args),
    )
    if args.input is not None:
        summary["input"] = corpus.description
    return _show(args, summary)


def _prepare_task(args: argparse.Namespace) -> dict[str, Any]:
    """Prepares the examples of a task and returns the summary."""
    flags = ("--corpus", "--format", "--fields", "--text_field", "--skip_invalid")
    _refuse(args, f"--task {args.task}", *flags)
    if len(args.input) != 1:
        raise UserError(f"--task {args.task} reads one folder: name it with --input DIR")
    return registry.make_task(args.task).prepare(
        local_path(args.input[0], "--input"),
        None if args.tokenizer is None else _read_tokenizer(args.tokenizer),
        args.out,
        **({} if args.fraction is None else {"fraction": args.fraction}),
        **_settings(args),
    )


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what every way of preparing takes."""
    return {
        "val_fraction": args.val_fraction,
        "workers": args.workers,
        "engine": args.engine,
        "ray_address": args.ray_address,
        "log": lambda line: print(line, file=sys.stderr),
    }


def _refuse(args: argparse.Namespace, with_: str, *flags: str) -> None:
    """Raises UserError if one of these flags was given."""
    given = {
        "--corpus": args.corpus,
        "--format": args.format != "documents" and args.format,
        "--fields": args.fields,
        "--text_field": args.text_field != "text" and args.text_field,
        "--skip_invalid": args.skip_invalid,
    }
    for flag in flags:
        if value := given[flag]:
            shown = flag if value is True else f"{flag} {value}"
            raise UserError(f"{shown} does not apply to {with_}: omit it")


def _show(args: argparse.Namespace, summary: dict[str, Any]) -> int:
    if is_trained_name(args.tokenizer or ""):
        wanted, ids = vocabulary_size(args.tokenizer), summary["vocab_size"]
        if ids < wanted:
            print(
                f"note: the vocabulary has {ids:,} ids, not {wanted:,}: no more pairs occur twice "
                "in the text",
                file=sys.stderr,
            )
    print(json.dumps(summary) if args.json else _describe(summary))
    return 0


def _prepare_examples(args: argparse.Namespace) -> dict[str, Any]:
    """Prepares examples and returns the summary."""
    _refuse(args, "--format examples", "--corpus", "--text_field", "--skip_invalid")
    fields = parse_fields(args.fields or _FIELDS, "--fields")
    name = shortened(f"--input {' '.join(args.input)}", 100)
    files = None
    if len(args.input) == 1 and Path(args.input[0], "train.jsonl").is_file():
        files = example_files(args.input[0])
    files = files or {"train": input_files(args.input)}
    return prepare_examples(
        files,
        fields,
        _read_tokenizer(args.tokenizer),
        args.out,
        name=name,
        **_settings(args),
    )


def _read_tokenizer(name: str | None) -> str | Tokenizer:
    """Returns the name of one of our tokenizers, or the tokenizer of the model that it names.

    None is GPT-2's.

    Raises:
      UserError: if it is neither, or the model's tokenizer cannot be read.
    """
    if name is None:
        return "gpt2"
    if name in PREPARE_CHOICES:
        return name
    if is_trained_name(name):
        vocabulary_size(name)  # refused before anything is read
        return name
    allowed = f"--tokenizer must be {', '.join(PREPARE_CHOICES)}, bpe:N or a model, not {name!r}"
    if not ("/" in name or (name and Path(name).exists())):
        raise UserError(f"{allowed}: there is no such folder{did_you_mean(name, PREPARE_CHOICES)}")
    from gpt2_jax.formats.load import read_text_tokenizer

    try:
        return read_text_tokenizer(name)
    except UserError as error:
        raise UserError(f"--tokenizer: {error}") from error


def _describe(summary: dict[str, Any]) -> str:
    done = "already prepared" if summary["already_prepared"] else "prepared"
    source = f" from {summary['input']}" if "input" in summary else ""
    lines = [
        f"{done} {summary['out']}{source}: tokenizer {summary['tokenizer']}, "
        f"{summary['vocab_size']} ids, {summary['seconds']:.1f} s"
    ]
    lines += [
        f"  {name:<5} {split['tokens']:>13,} tokens {split['bytes']:>13,} bytes "
        f"{split['documents']:>9,} documents"
        for name, split in summary["splits"].items()
    ]
    if summary["skipped_rows"]:
        lines.append(f"  invalid rows left out: {summary['skipped_rows']:,}")
    return "\n".join(lines)
