"""Tokens to logits to loss: GPT-2, its attention, its KV cache and what a token costs."""
