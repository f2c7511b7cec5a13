"""Runs the console command `gpt2-jax` as `python -m gpt2_jax`."""

from __future__ import annotations

from gpt2_jax.cli.main import console

if __name__ == "__main__":
    console()
