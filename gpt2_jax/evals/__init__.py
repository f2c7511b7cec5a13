"""Parameters to numbers: perplexity and the evaluations of the GPT-2 paper."""
