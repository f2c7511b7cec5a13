"""Loads a model with transformers and prints the most probable next token, then ends."""

from __future__ import annotations

import argparse

import torch
from transformers import GPT2LMHeadModel

from experiments.benchmarks.workers.torch_device import DEVICE


@torch.inference_mode()
def main() -> None:
    """Prints one token."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt_tokens", required=True)
    args = parser.parse_args()
    model = GPT2LMHeadModel.from_pretrained(args.model, attn_implementation="sdpa").to(DEVICE)
    ids = torch.tensor([[int(word) for word in args.prompt_tokens.split(",")]], device=DEVICE)
    tokens = model.eval().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=1,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    print(int(tokens[0, -1]))


if __name__ == "__main__":
    main()
