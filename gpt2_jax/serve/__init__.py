"""Serves models over HTTP: completions as OpenAI's clients speak them, scores and token ids."""
