"""Turns logits into text and scores: sampling, generation with a KV cache, batched scoring."""
