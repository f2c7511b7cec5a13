"""Tasks that a model does by writing: their examples, their prompts, and scores of its answers."""
