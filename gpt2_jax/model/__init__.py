"""Computes logits and losses of tokens: GPT-2, its attention, its KV cache and its cost."""
