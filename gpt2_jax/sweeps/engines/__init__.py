"""Engines: where the points of a sweep run: this machine, Slurm, or a slice of many hosts."""
