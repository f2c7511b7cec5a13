"""Predicts from a config and a topology whether a run fits, what it moves and how long it takes."""
