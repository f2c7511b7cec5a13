"""Logits to text: sampling and generation with a KV cache."""
