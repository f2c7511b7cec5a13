"""The console command `gpt2-jax`: one file a verb; flags in, functions called, text out."""
