"""Refuses PyTorch pickles, because opening one runs whatever code it contains."""

from __future__ import annotations

from pathlib import Path

from gpt2_jax.errors import UserError

PICKLES = ("pytorch_model*.bin", "adapter_model*.bin", "*.pt", "*.pth")
"""The patterns of their names."""
NANOGPT_DOCS = 'docs/formats.md, "nanoGPT\'s checkpoints"'
"""Where it is written how to convert nanoGPT's."""


def refuse_pickles(folder: Path) -> None:
    """Raises UserError that says how to convert the pickle of a folder, if it has one."""
    pickles = [path.name for pattern in PICKLES for path in sorted(folder.glob(pattern))]
    if pickles == ["ckpt.pt"]:
        raise UserError(
            f"{folder}/ckpt.pt is a PyTorch pickle, as nanoGPT writes it, and opening one runs the "
            f"code in it; if you trust it, convert it with the lines in {NANOGPT_DOCS}"
        )
    if pickles:
        raise UserError(
            f"{folder} has only a PyTorch pickle ({pickles[0]}), and opening one runs the code in "
            'it; if you trust it, convert it: python -c "from transformers import '
            f"GPT2LMHeadModel as M; M.from_pretrained('{folder}').save_pretrained('SAFE')\""
        )
