"""Measures gpt2_jax beside other programs that do the same; see docs/performance.md."""
