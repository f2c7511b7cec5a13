"""Runs the console command, as `gpt2-jax` or as `python -m gpt2_jax`."""

from __future__ import annotations

from typing import NoReturn

from gpt2_jax.cli.interrupts import handle_interrupts


def console() -> NoReturn:
    """Runs the command and exits with its status; see `cli.main`."""
    handle_interrupts()
    # Imported now, so that Ctrl-C does not show a traceback of the imports.
    from gpt2_jax.cli import main

    main.console()


if __name__ == "__main__":
    console()
