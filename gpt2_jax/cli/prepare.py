"""`gpt2-jax prepare`: text to token shards."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import engines
from gpt2_jax.prepare.corpora import CORPORA, get_corpus
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.tokenizers.tokenizer import NAMES

HELP = "turn text into token shards"

EXAMPLES = """\
gpt2-jax prepare --corpus python-stdlib --tokenizer byte --out runs/data/stdlib
gpt2-jax prepare --corpus tinyshakespeare --tokenizer char --out runs/data/shakespeare_char
gpt2-jax prepare --input novels/ notes.txt --out runs/data/novels
gpt2-jax prepare --input 'crawl/**/*.jsonl.gz' --text_field content --out runs/data/crawl
gpt2-jax prepare --input hub:HuggingFaceFW/fineweb:sample-10BT --out runs/data/fineweb
gpt2-jax prepare --input /shared/text --engine ray --ray_address auto --out /shared/tokens"""

_CORPORA = "; ".join(f"{corpus.name} ({corpus.description})" for corpus in CORPORA.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this verb's flags."""
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help="text files (each is one document), JSON lines or Parquet (each line or row is one), "
        "folders of them, quoted patterns, or hub:OWNER/NAME[:CONFIG[:SPLIT]]; .gz and .zst are "
        "unpacked",
    )
    parser.add_argument("--corpus", metavar="NAME", help=f"instead of --input: {_CORPORA}")
    parser.add_argument(
        "--text_field",
        default="text",
        metavar="NAME",
        help="field of JSON lines, or column, with the text (default: text)",
    )
    parser.add_argument("--tokenizer", choices=NAMES, default="gpt2", help="default: gpt2")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--val_fraction",
        type=float,
        default=0.1,
        help="end of the token stream that becomes the val split (default: 0.1; 0: none)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that encode (default: one per CPU); the result does not depend on it",
    )
    parser.add_argument(
        "--engine",
        choices=engines.NAMES,
        default="processes",
        help="who encodes: processes of this machine, or Ray, over machines that share the files",
    )
    parser.add_argument(
        "--ray_address",
        metavar="ADDRESS",
        help="Ray cluster, such as auto or HOST:6379 (default: one started here)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Prepares the data and prints a summary; returns the exit status."""
    if (args.input is None) == (args.corpus is None):
        raise UserError("give exactly one of --input PATH... and --corpus NAME")
    if args.corpus is not None:
        corpus = get_corpus(args.corpus)
    else:
        corpus = read_inputs(args.input, args.text_field)
    summary = prepare(
        corpus,
        args.tokenizer,
        args.out,
        val_fraction=args.val_fraction,
        workers=args.workers,
        engine=args.engine,
        ray_address=args.ray_address,
        log=lambda line: print(line, file=sys.stderr),
    )
    print(json.dumps(summary) if args.json else _describe(summary))
    return 0


def _describe(summary: dict[str, Any]) -> str:
    done = "already prepared" if summary["already_prepared"] else "prepared"
    lines = [
        f"{done} {summary['out']}: tokenizer {summary['tokenizer']}, "
        f"{summary['vocab_size']} ids, {summary['seconds']:.1f} s"
    ]
    lines += [
        f"  {name:<5} {split['tokens']:>13,} tokens {split['bytes']:>13,} bytes "
        f"{split['documents']:>9,} documents"
        for name, split in summary["splits"].items()
    ]
    return "\n".join(lines)
