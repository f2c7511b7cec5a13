"""Implements the flag --compilation_cache of the verbs that compile programs."""

from __future__ import annotations

import argparse


def add_argument(parser: argparse._ActionsContainer) -> None:
    """Declares the flag in a parser or a group."""
    parser.add_argument(
        "--compilation_cache",
        metavar="DIR",
        help="where compiled programs are kept between starts: a folder, gs://BUCKET/FOLDER, or "
        "off; default: $GPT2_JAX_COMPILATION_CACHE or ~/.cache/gpt2_jax/compiled",
    )


def apply(args: argparse.Namespace) -> None:
    """Makes JAX keep programs where the flag says; without it, the called functions decide."""
    if args.compilation_cache is not None:
        from gpt2_jax.parallel.compilation_cache import keep_compiled_programs

        keep_compiled_programs(args.compilation_cache)
