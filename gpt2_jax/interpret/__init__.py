"""Says what a model did with a text, as arrays: every number that the explorer shows."""
