"""Checkpoints: saving and restoring trees of arrays, and detecting damage."""
