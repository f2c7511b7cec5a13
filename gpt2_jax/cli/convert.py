"""Implements `gpt2-jax convert`, which writes a model in another format."""

from __future__ import annotations

import argparse
import json
import os
import shutil

from gpt2_jax.cli import EMA_HELP, MODEL_HELP
from gpt2_jax.errors import StorageError, UserError
from gpt2_jax.files.paths import local_path, replaceable_folder

HELP = """\
Write a model in Hugging Face's format, PEFT's, or this package's own.

--to hf writes a folder that transformers' `GPT2LMHeadModel.from_pretrained` loads. --to native
writes a workdir with one checkpoint, which every --model of this command accepts. Both merge
adapters (LoRA) into the weights. --to peft writes the adapters alone, for PEFT's
`PeftModel.from_pretrained`."""
EXAMPLES = """\
gpt2-jax convert --model runs/quickstart --to hf --out runs/quickstart_hf
gpt2-jax convert --model downloads/gpt2 --to native --out runs/gpt2
gpt2-jax convert --model downloads/124M --to hf --out runs/gpt2_hf
gpt2-jax convert --model runs/finetuned --to peft --out runs/finetuned_peft"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    parser.add_argument("--model", required=True, metavar="M", help=MODEL_HELP)
    parser.add_argument("--ema", action="store_true", help=EMA_HELP)
    parser.add_argument(
        "--to", required=True, choices=("hf", "native", "peft"), help="the format to write"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="the folder to write, new or empty"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of text"
    )


def run(args: argparse.Namespace) -> int:
    """Converts the model and returns the exit status."""
    out = local_path(args.out, "--out")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} is not empty: name a folder that is new or empty")
    place = replaceable_folder(out, "--out")
    from gpt2_jax.formats import huggingface, peft
    from gpt2_jax.formats.base import merged_model
    from gpt2_jax.formats.load import load, write_native
    from gpt2_jax.model import lora
    from gpt2_jax.model.flops import num_params

    model = load(args.model, ema=args.ema)
    if args.to != "peft":
        model = merged_model(model)
    # Written beside --out and renamed, so that no reader ever sees half of a model.
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write --out {out}: {error.strerror}") from error
    try:
        if args.to == "hf":
            huggingface.write(partial, model.config.model, model.params, model.tokenizer)
        elif args.to == "peft":
            peft.write(partial, model)
        else:
            write_native(partial, model)
        if place.is_dir():
            place.rmdir()
        partial.rename(place)
    except OSError as error:
        raise StorageError(
            f"cannot write --out {out}: {error.strerror}; run the same command again when that is "
            "fixed"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    report = {"model": args.model, "out": args.out, "to": args.to}
    count = lora.num_params if args.to == "peft" else num_params
    report["parameters"] = count(model.config.model)
    print(json.dumps(report) if args.json else f"wrote {out}: {report['parameters']:,} parameters")
    return 0
