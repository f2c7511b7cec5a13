"""Text to tokens to batches: tokenizers, corpora, token shards and the loader."""
