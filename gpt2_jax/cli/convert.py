"""`gpt2-jax convert`: write a model in another format."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from gpt2_jax.cli import MODEL_HELP
from gpt2_jax.errors import StorageError, UserError

HELP = "Write a model in Hugging Face's format, or in this package's own."
EXAMPLES = """\
gpt2-jax convert --model runs/quickstart --to hf --out runs/quickstart_hf
gpt2-jax convert --model downloads/gpt2 --to native --out runs/gpt2
gpt2-jax convert --model downloads/124M --to hf --out runs/gpt2_hf"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument("--model", required=True, metavar="M", help=MODEL_HELP)
    parser.add_argument("--to", required=True, choices=("hf", "native"), help="format to write")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Converts; returns the exit status."""
    out = Path(args.out)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} exists; name a folder that is new or empty")
    from gpt2_jax.formats import huggingface
    from gpt2_jax.formats.load import load, write_native
    from gpt2_jax.model.flops import num_params

    loaded = load(args.model)
    # Whole or not there at all: a reader never meets half a model.
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"can't write --out {out}: {error.strerror}") from error
    try:
        if args.to == "hf":
            huggingface.write(partial, loaded.config.model, loaded.params, loaded.tokenizer)
        else:
            write_native(partial, loaded)
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise StorageError(f"can't write --out {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    report = {"model": args.model, "out": args.out, "to": args.to}
    report["parameters"] = num_params(loaded.config.model)
    print(json.dumps(report) if args.json else f"wrote {out}: {report['parameters']:,} parameters")
    return 0
