"""Compares many runs: sweep files, their runner, statistics and reports."""
