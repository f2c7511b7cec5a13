"""Scores models: perplexity, the evaluations of the GPT-2 paper, and the tasks of lm-eval."""
